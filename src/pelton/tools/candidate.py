"""Text that may be a call, kept until it is known."""

from __future__ import annotations

from .calls import read_json
from .json_scan import JsonScanner, Scan


class Candidate:
    """What a dialect writes before a JSON value, and the value. Takes time linear in the text.

    `steps` counts characters each time they are looked at here.
    """

    __slots__ = ("_lead", "_raw", "_scanner", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self._raw: list[str] = []
        self._lead = 0
        self._scanner = JsonScanner()

    def hold(self, text: str) -> None:
        """What stands before the value."""
        self._raw.append(text)
        self._lead = len(self._raw)

    def begin(self) -> None:
        """The next character is the value's first."""
        self._scanner = JsonScanner()

    def feed(self, character: str) -> Scan:
        """The value's next character, which is kept unless it is BAD."""
        scan = self._scanner.feed(character)
        if scan is not Scan.BAD:
            self._raw.append(character)
        return scan

    def value(self) -> object:
        """The value, once it is DONE; None where it is no JSON after all."""
        self.steps += len(self._raw)
        return read_json("".join(self._raw[self._lead :]))

    def release(self) -> str:
        """It is text: all of it, and nothing is kept."""
        raw = "".join(self._raw)
        self.steps += len(raw)
        self.drop()
        return raw

    def drop(self) -> None:
        """It was calls."""
        self._raw, self._lead = [], 0
