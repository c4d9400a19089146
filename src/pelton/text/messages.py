"""Chat messages, checked and turned into plain JSON values before a template sees them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pelton.errors import RequestError

MAX_MESSAGES = 16384
MAX_DEPTH = 32
MAX_VALUES = 200_000
MAX_CHARACTERS = 4 << 20  # of all strings in one request
# Templates write roles between the marks of a control token, so a role is a plain word.
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}\Z")


def plain_messages(messages: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Copies of `messages` in plain types; RequestError naming the message and field that is wrong.

    Each needs a `role` (a word) and `content`: text, a list of `{"type": "text", "text": ...}`, or None
    beside `tool_calls`. Other keys (name, tool_calls, tool_call_id, reasoning) pass through.
    """
    if not isinstance(messages, list | tuple):
        raise RequestError("messages are a list", field="messages", value=type(messages).__name__)
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise RequestError(f"a chat has 1 to {MAX_MESSAGES} messages", field="messages", value=len(messages))
    plain = []
    for index, message in enumerate(messages):
        field = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise RequestError("a message is a mapping", field=field, value=type(message).__name__)
        _check_role(message.get("role"), f"{field}.role")
        _check_content(message, f"{field}.content")
        plain.append({str(key): value for key, value in message.items()})
    copied = plain_value(plain, "messages")
    assert isinstance(copied, list)
    return copied


def _check_role(role: object, field: str) -> None:
    if not isinstance(role, str) or not _ROLE.match(role):
        raise RequestError(
            "a role is a word such as system, user, assistant or tool", field=field, value=role
        )


def _check_content(message: Mapping[str, object], field: str) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if content is None:
        if message.get("tool_calls") or message.get("function_call"):
            return
        raise RequestError("a message without tool calls needs content", field=field)
    if not isinstance(content, list | tuple):
        raise RequestError("content is text or a list of parts", field=field, value=type(content).__name__)
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise RequestError(
                'only {"type": "text", "text": ...} parts are taken',
                field=f"{field}[{index}].type",
                value=kind,
            )


def plain_value(value: object, field: str) -> object:
    """A copy of a JSON-like value made of exact str, int, float, bool, None, list and dict.

    RequestError for other types, lone surrogates, cycles or sizes beyond the bounds of this module.
    """
    return _Copier(field).copy(value, 0)


class _Copier:
    def __init__(self, field: str) -> None:
        self.field = field
        self.values = 0
        self.characters = 0

    def copy(self, value: object, depth: int) -> object:
        self.values += 1
        if depth > MAX_DEPTH or self.values > MAX_VALUES:
            raise self.refuse(f"nested deeper than {MAX_DEPTH} or more than {MAX_VALUES} values", None)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            if value.bit_length() > 256:
                raise self.refuse("a number this large is refused", None)
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, Mapping):
            return {self.key(key): self.copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(item, depth + 1) for item in value]
        raise self.refuse("only JSON values are taken", type(value).__name__)

    def key(self, key: object) -> str:
        if not isinstance(key, str):
            raise self.refuse("keys are text", key)
        return self.text(key)

    def text(self, value: str) -> str:
        self.characters += len(value)
        if self.characters > MAX_CHARACTERS:
            raise self.refuse(f"more than {MAX_CHARACTERS} characters in one request", None)
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise self.refuse("a lone surrogate is not Unicode text", None)
        return "".join(value) if type(value) is not str else value

    def refuse(self, why: str, value: object) -> RequestError:
        return RequestError(why, field=self.field, value=value)
