"""The dialect of Hermes and Qwen: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

from .blanks import Prose
from .calls import Delta, Found, read_call
from .candidate import Candidate
from .json_scan import BLANKS, Scan
from .marker import MarkerMatcher

OPENING = "<tool_call>"
CLOSING = "</tool_call>"


class HermesParser:
    """Reads any number of calls with text before, between and after them.

    Text that opens like a call and is none stays text, and a call may begin right where it went wrong; the
    closing tag may be left out.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._looks = 0
        self._names = names
        self._found = Found()
        self._prose = Prose(self._found)
        self._step = self._in_text
        self._opening = MarkerMatcher(OPENING)
        self._closing = MarkerMatcher(CLOSING)
        self._candidate = Candidate()

    @property
    def steps(self) -> int:
        return self._looks + self._candidate.steps

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
        self._looks += 1
        plain, found = self._opening.feed(character)
        self._prose.add(plain)
        if found:
            self._step = self._before_call
            self._candidate.hold(OPENING)

    def _before_call(self, character: str) -> None:
        """Blanks, then the call's object."""
        if character in BLANKS:
            self._looks += 1
            self._candidate.hold(character)
        else:
            self._candidate.begin()
            self._step = self._in_call
            self._in_call(character)

    def _in_call(self, character: str) -> None:
        self._looks += 1
        scan = self._candidate.feed(character)
        if scan is Scan.BAD:
            return self._give_up(character)
        if scan is Scan.DONE:
            call = read_call(self._candidate.value(), self._names, "arguments")
            if call is None:
                return self._give_up("")
            self._prose.call(call.name, call.arguments)
            self._candidate.drop()
            self._step = self._after

    def _give_up(self, character: str) -> None:
        """What looked like a call is text; `character` may begin the next one."""
        self._prose.add(self._candidate.release())
        self._step = self._in_text
        if character:
            self._in_text(character)

    def _after(self, character: str) -> None:
        """Behind a call's object: blanks, then its closing tag if it has one."""
        self._looks += 1
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
