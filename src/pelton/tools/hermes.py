"""The dialect of Hermes and Qwen: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

from .blanks import Prose
from .calls import Delta, Found, read_call, read_json
from .json_scan import JsonScanner, Scan
from .marker import MarkerMatcher

OPENING = "<tool_call>"
CLOSING = "</tool_call>"


class HermesParser:
    """Reads any number of calls with text before, between and after them.

    Text that opens like a call and is none stays text, and a call may begin right where it went wrong; the
    closing tag may be left out.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self.steps = 0
        self._names = names
        self._found = Found()
        self._prose = Prose(self._found)
        self._step = self._in_text
        self._opening = MarkerMatcher(OPENING)
        self._closing = MarkerMatcher(CLOSING)
        self._raw: list[str] = []
        self._scanner = JsonScanner()
        self._has_begun = False

    def feed(self, text: str) -> list[Delta]:
        for character in text:
            self._step(character)
        return self._found.take()

    def finish(self) -> list[Delta]:
        self._give_up("")
        self._prose.add(self._closing.reset() + self._opening.reset())
        self._prose.finish()
        return self._found.take()

    def _in_text(self, character: str) -> None:
        self.steps += 1
        plain, found = self._opening.feed(character)
        self._prose.add(plain)
        if found:
            self._step, self._has_begun = self._in_call, False
            self._raw, self._scanner = [OPENING], JsonScanner()

    def _in_call(self, character: str) -> None:
        self.steps += 1
        if self._has_begun or not character.isspace():
            self._has_begun = True
            scan = self._scanner.feed(character)
            if scan is Scan.BAD:
                return self._give_up(character)
            if scan is Scan.DONE:
                return self._end_call(character)
        self._raw.append(character)

    def _end_call(self, character: str) -> None:
        self._raw.append(character)
        self.steps += len(self._raw)
        call = read_call(read_json("".join(self._raw[1:])), self._names, "arguments")
        if call is None:
            return self._give_up("")
        self._prose.call(call.name, call.arguments)
        self._step, self._raw = self._after, []

    def _give_up(self, character: str) -> None:
        """What looked like a call is text; `character` may begin the next one."""
        raw, self._raw = self._raw, []
        self.steps += len(raw)
        self._prose.add("".join(raw))
        self._step = self._in_text
        if character:
            self._in_text(character)

    def _after(self, character: str) -> None:
        """Behind a call's object: blanks, then its closing tag if it has one."""
        self.steps += 1
        if not self._closing.held and character.isspace():
            self._prose.add(character)
            return
        plain, found = self._closing.feed(character)
        if found:
            self._prose.drop_blanks()
            self._step = self._in_text
        elif plain:
            self._step = self._in_text
            for other in plain + self._closing.reset():
                self._in_text(other)
