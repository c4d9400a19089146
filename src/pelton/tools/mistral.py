"""The dialects of Mistral: `[TOOL_CALLS]` before a list of calls, or before the name of each."""

from __future__ import annotations

import string

from .blanks import Prose
from .calls import Delta, Found, ToolCall, read_call
from .candidate import Candidate
from .json_scan import Scan
from .marker import MarkerMatcher

OPENING = "[TOOL_CALLS]"
ARGUMENTS = "[ARGS]"
CALL_ID = "[CALL_ID]"
_NAME = frozenset(string.ascii_letters + string.digits + "_.-")
LONGEST_HEAD = 256
"""Characters between the opening and the arguments: a name, an id and their marks."""


class MistralParser:
    """Reads `[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]` of the older models and
    `[TOOL_CALLS]name{...}` or `[TOOL_CALLS]name[CALL_ID]id[ARGS]{...}` of the newer ones.

    What follows an opening and is no such call stays text, and a call may begin right where it went wrong.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._looks = 0
        self._names = names
        self._found = Found()
        self._prose = Prose(self._found)
        self._step = self._in_text
        self._opening = MarkerMatcher(OPENING)
        self._candidate = Candidate()
        self._head = ""

    @property
    def steps(self) -> int:
        return self._looks + self._candidate.steps

    def feed(self, text: str) -> list[Delta]:
        for character in text:
            self._step(character)
        return self._found.take()

    def finish(self) -> list[Delta]:
        self._give_up("")
        self._prose.add(self._opening.reset())
        self._prose.finish()
        return self._found.take()

    def _in_text(self, character: str) -> None:
        self._looks += 1
        plain, found = self._opening.feed(character)
        self._prose.add(plain)
        if found:
            self._candidate.hold(OPENING)
            self._head = ""
            self._step = self._in_head

    def _in_head(self, character: str) -> None:
        """A name and its marks up to the `{` of its arguments; or at once the list of calls."""
        self._looks += 1
        opens_list = character == "[" and not self._head.strip()
        if opens_list or character == "{":
            self._candidate.begin()
            self._step = self._in_value
            self._in_value(character)
        elif len(self._head) < LONGEST_HEAD and (character in _NAME or character in "[] \n"):
            self._candidate.hold(character)
            self._head += character  # short: bounded just above
        else:
            self._give_up(character)

    def _in_value(self, character: str) -> None:
        self._looks += 1
        scan = self._candidate.feed(character)
        if scan is Scan.BAD:
            return self._give_up(character)
        if scan is Scan.DONE:
            calls = self._calls(self._candidate.value())
            if not calls:
                return self._give_up("")
            for call in calls:
                self._prose.call(call.name, call.arguments)
            self._candidate.drop()
            self._step = self._in_text

    def _calls(self, value: object) -> list[ToolCall]:
        """The calls of a head and a value; none if one of them is not well formed."""
        head = self._head.strip()
        if head:
            name = head.removesuffix(ARGUMENTS).partition(CALL_ID)[0]
            items: list[object] = [{"name": name, "arguments": value}]
        else:
            items = value if isinstance(value, list) else [value]
        calls = [read_call(item, self._names, "arguments") for item in items]
        good = [call for call in calls if call is not None]
        return good if len(good) == len(calls) else []

    def _give_up(self, character: str) -> None:
        """What looked like a call is text; `character` may begin the next one."""
        self._prose.add(self._candidate.release())
        self._step = self._in_text
        if character:
            self._in_text(character)
