"""Finding a fixed string in text that comes in pieces."""

from __future__ import annotations


class MarkerMatcher:
    """Watches for one short string; work for a character is at most the square of its length."""

    __slots__ = ("_marker", "held")

    def __init__(self, marker: str) -> None:
        assert marker
        self._marker = marker
        self.held = ""
        """The end of the text so far that may be the marker's beginning."""

    def feed(self, character: str) -> tuple[str, bool]:
        """What is settled to be no part of the marker, and whether the marker ends here."""
        text = self.held + character
        start = 0
        while not self._marker.startswith(text[start:]):
            start += 1
        self.held = text[start:]
        if self.held == self._marker:
            self.held = ""
            return text[:start], True
        return text[:start], False

    def reset(self) -> str:
        """Forget and return what was held."""
        held, self.held = self.held, ""
        return held
