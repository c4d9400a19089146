"""What an answer must look like: a JSON schema, any JSON object, a regex, a list of choices, or a grammar.

Only the request's side: values, checked and bounded. What they mean in tokens is `decode/grammar.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import RequestError

SUBJECT = "structured outputs"
KINDS = ("json", "json_object", "regex", "choice", "grammar")
MAX_CHARACTERS = 128 << 10
"""Of a schema, regex or grammar, and of all choices together."""
MAX_CHOICES = 4096
MAX_DEPTH = 64
ANY_OBJECT = '{"type":"object"}'
MAX_VALUES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputs:
    """A form that the whole text must have; named as vLLM's `StructuredOutputsParams`. Give exactly one kind.

    - `json`: a JSON schema, as its text or as a mapping; it is stored as text, properties in their order.
    - `json_object` True: any JSON object.
    - `regex`: the whole text matches it, in the syntax of Rust's regex crate with `\\d`, `\\w` and `\\s` for
      ASCII; look-around, `\\b` and back-references are not taken.
    - `choice`: the text is one of these strings.
    - `grammar`: a grammar in Lark's syntax (as llguidance extends it) or in llama.cpp's GBNF.

    `disable_any_whitespace` leaves JSON no blanks but one after each comma and colon. Raises RequestError.
    """

    json: str | Mapping[str, object] | None = None
    json_object: bool = False
    regex: str | None = None
    choice: Sequence[str] = ()
    grammar: str | None = None
    disable_any_whitespace: bool = False

    def __post_init__(self) -> None:
        for name in ("json_object", "disable_any_whitespace"):
            if not isinstance(getattr(self, name), bool):
                raise _error(name, "must be True or False")
        if self.json is not None:
            object.__setattr__(self, "json", _schema(self.json))
        for name in ("regex", "grammar"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name), MAX_CHARACTERS)
        object.__setattr__(self, "choice", _choices(self.choice))
        given = [name for name in KINDS if getattr(self, name) not in (None, False, ())]
        if len(given) != 1:
            said = f"{' and '.join(given)} are given" if given else "none is given"
            raise RequestError(f"give one of {', '.join(KINDS)}; {said}", subject=SUBJECT)

    @property
    def kind(self) -> str:
        """Which of KINDS is given."""
        return next(name for name in KINDS if getattr(self, name) not in (None, False, ()))


def _error(field: str, message: str, value: object = None) -> RequestError:
    return RequestError(message, subject=SUBJECT, field=field, value=value)


def _check_text(field: str, value: object, most: int) -> str:
    if not isinstance(value, str):
        raise _error(field, f"must be a string, not {type(value).__name__}")
    if not value or len(value) > most:
        raise _error(field, f"must have 1 to {most} characters", len(value))
    return _check_unicode(field, value)


def _check_unicode(field: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _error(field, "holds a lone surrogate, which is no text") from None
    return value


def _choices(value: object) -> tuple[str, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise _error("choice", f"must be a list of strings, not {type(value).__name__}")
    if len(value) > MAX_CHOICES:
        raise _error("choice", f"at most {MAX_CHOICES} are taken", len(value))
    left = MAX_CHARACTERS
    for item in value:
        left -= len(_check_text("choice", item, left))
    return tuple(dict.fromkeys(value))


def _schema(value: object) -> str:
    """The schema as compact text. What JSON cannot say, or says too deeply, is refused."""
    if isinstance(value, str):
        if len(value) > MAX_CHARACTERS:
            raise _error("json", f"must have 1 to {MAX_CHARACTERS} characters", len(value))
        try:
            value = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise _error("json", f"is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, Mapping):
        raise _error("json", f"a schema is an object, not {type(value).__name__}")
    _check_size(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise _error("json", f"is not JSON: {str(error)[:200]}") from None
    return _check_text("json", text, MAX_CHARACTERS)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _check_size(schema: Mapping[str, object]) -> None:
    """Depth and number of values, counted level by level, so that no input can recurse or cycle for long."""
    level: list[object] = [schema]
    count = 0
    for _ in range(MAX_DEPTH):
        count += len(level)
        if count > MAX_VALUES:
            raise _error("json", f"holds more than {MAX_VALUES} values")
        inner: list[object] = []
        for value in level:
            if isinstance(value, Mapping):
                inner += value.values()
            elif isinstance(value, list | tuple):
                inner += value
            if len(inner) > MAX_VALUES:
                raise _error("json", f"holds more than {MAX_VALUES} values")
        if not inner:
            return
        level = inner
    raise _error("json", f"is nested deeper than {MAX_DEPTH}")
