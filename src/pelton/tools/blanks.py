"""Text between calls, without the blanks that only set calls apart."""

from __future__ import annotations

from .calls import Found


class Prose:
    """Passes text on but for blanks at its end, which wait until it is known whether a call follows."""

    __slots__ = ("_blanks", "_found")

    def __init__(self, found: Found) -> None:
        self._found = found
        self._blanks: list[str] = []

    def add(self, text: str) -> None:
        """More text; only its last blanks are held back."""
        rest = text.rstrip()
        if rest:
            self._found.text("".join(self._blanks) + rest)
            self._blanks.clear()
        if len(rest) < len(text):
            self._blanks.append(text[len(rest) :])

    def call(self, name: str, arguments: str) -> None:
        """A call: the blanks before it are dropped."""
        self._blanks.clear()
        self._found.call(name, arguments)

    def drop_blanks(self) -> None:
        self._blanks.clear()

    def finish(self) -> None:
        """The text has ended; its last blanks are text unless there were calls."""
        if not self._found.num_calls:
            self._found.text("".join(self._blanks))
        self._blanks.clear()
