"""The dialect of Llama 3: an answer that is `{"name": ..., "parameters": {...}}`, or more with `;`."""

from __future__ import annotations

from .blanks import Prose
from .calls import Delta, Found, read_call
from .candidate import Candidate
from .json_scan import Scan
from .marker import MarkerMatcher

TAG = "<|python_tag|>"


class Llama3Parser:
    """Reads calls from the beginning of an answer, with or without `<|python_tag|>` before them.

    An answer that begins otherwise is text, and so is all from the first thing that is no call.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._looks = 0
        self._names = names
        self._found = Found()
        self._prose = Prose(self._found)
        self._step = self._before
        self._tag = MarkerMatcher(TAG)
        self._candidate = Candidate()

    @property
    def steps(self) -> int:
        return self._looks + self._candidate.steps

    def feed(self, text: str) -> list[Delta]:
        for character in text:
            self._step(character)
        return self._found.take()

    def finish(self) -> list[Delta]:
        # A semicolon behind the last call is as good as none; anything else held back is text.
        if not (self._step == self._between and self._found.num_calls):
            self._give_up(self._tag.reset())
        self._prose.finish()
        return self._found.take()

    def _before(self, character: str) -> None:
        """Blanks, then the tag or an object."""
        self._looks += 1
        if character.isspace() and not self._tag.held:
            self._candidate.hold(character)
        elif character == "{" and not self._tag.held:
            self._begin(character)
        else:
            plain, found = self._tag.feed(character)
            if found:
                self._candidate.hold(TAG)
                self._step = self._between
            elif plain:
                self._give_up(plain + self._tag.reset())

    def _between(self, character: str) -> None:
        """Blanks and semicolons, then the next object."""
        self._looks += 1
        if character == "{":
            self._begin(character)
        elif character.isspace() or (character == ";" and self._found.num_calls):
            self._candidate.hold(character)
        else:
            self._give_up(character)

    def _begin(self, character: str) -> None:
        self._candidate.begin()
        self._step = self._in_object
        self._in_object(character)

    def _in_object(self, character: str) -> None:
        self._looks += 1
        scan = self._candidate.feed(character)
        if scan is Scan.BAD:
            return self._give_up(character)
        if scan is Scan.DONE:
            value = self._candidate.value()
            key = "arguments" if isinstance(value, dict) and "parameters" not in value else "parameters"
            call = read_call(value, self._names, key)
            if call is None:
                return self._give_up("")
            self._prose.call(call.name, call.arguments)
            self._candidate.drop()
            self._step = self._between

    def _give_up(self, rest: str) -> None:
        """From here on all is text."""
        self._looks += len(rest)
        self._prose.add(self._candidate.release() + rest)
        self._step = self._in_text

    def _in_text(self, character: str) -> None:
        self._looks += 1
        self._prose.add(character)
