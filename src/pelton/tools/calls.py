"""What a parser finds in a model's text, and the protocol of parsers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the message's plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of call `index`: its first has the `name`, and all `arguments` together are JSON text."""

    index: int
    name: str | None
    arguments: str


Delta = TextDelta | CallDelta


class ToolParser(Protocol):
    """A state machine over one answer, fed a piece of text at a time.

    It takes time linear in the text and never raises, whatever a model writes. However the text is cut
    into pieces, the deltas add up to the same text and the same calls. What is no well-formed call of a
    known tool stays text.
    """

    @property
    def steps(self) -> int:
        """Characters looked at so far, counting each look."""

    def feed(self, text: str) -> list[Delta]:
        """Take more text; what it settled."""

    def finish(self) -> list[Delta]:
        """The text has ended; what was held back. Nothing may be fed afterwards."""


class Found:
    """Collects deltas in order; neighbouring pieces of text become one."""

    def __init__(self) -> None:
        self.num_calls = 0
        self._deltas: list[Delta] = []
        self._text: list[str] = []

    def text(self, text: str) -> None:
        self._text.append(text)

    def call(self, name: str, arguments: str) -> None:
        """A call's beginning, with its arguments as far as they are known."""
        self._settle()
        self._deltas.append(CallDelta(self.num_calls, name, arguments))
        self.num_calls += 1

    def arguments(self, text: str) -> None:
        """More of the last call's arguments."""
        last = self._deltas[-1] if self._deltas else None
        if isinstance(last, CallDelta) and not self._text:
            self._deltas[-1] = CallDelta(last.index, last.name, last.arguments + text)
        else:
            self._settle()
            self._deltas.append(CallDelta(self.num_calls - 1, None, text))

    def take(self) -> list[Delta]:
        """What was found since the last `take`."""
        self._settle()
        deltas, self._deltas = self._deltas, []
        return deltas

    def _settle(self) -> None:
        text, self._text = "".join(self._text), []
        if text:
            self._deltas.append(TextDelta(text))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


def read_call(value: object, names: frozenset[str], arguments_key: str) -> ToolCall | None:
    """The call that a JSON value of a model describes; None where it is no call of a known tool.

    Arguments may be left out, or be an object's text inside a string, as some models write them.
    """
    if not isinstance(value, dict):
        return None
    name = value.get("name")
    arguments = value.get(arguments_key, {})
    if isinstance(arguments, str):
        arguments = read_json(arguments)
    if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
        return None
    return ToolCall(name, json.dumps(arguments, ensure_ascii=False))


def read_json(text: str) -> object:
    """The value of a JSON text; None where it is none, or holds what JSON cannot say."""
    try:
        value: object = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # long integers, lone surrogates, 1e999 among them
        return None
    return value


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")
