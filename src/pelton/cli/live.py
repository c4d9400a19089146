"""Text that grows on a terminal, with a line below it that says how fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .console import printable

_SECONDS_BETWEEN_REDRAWS = 0.08
# Rows of an unfinished paragraph that are redrawn at most; what is above them is final.
_MOST_LIVE_ROWS = 8


class _LiveText:
    """Finished lines are printed once; only the last, unfinished one is drawn again with the status."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live
        self._line = ""
        self._pieces = 0
        self._start: float | None = None
        self._drawn = 0.0

    def show(self, piece: str) -> None:
        now = perf_counter()
        self._pieces += 1
        self._start = now if self._start is None else self._start
        *finished, self._line = (self._line + printable(piece)).split("\n")
        for line in finished:
            self._console.print(Text(line))
        self._split_long_line()
        if finished or now - self._drawn >= _SECONDS_BETWEEN_REDRAWS:
            self._drawn = now
            self._live.update(Group(Text(self._line), Text(self._status(now), style="dim")), refresh=True)

    def finish(self) -> None:
        self._live.update(Text(self._line), refresh=True)

    def _status(self, now: float) -> str:
        elapsed = now - (self._start or now)
        return f"{(self._pieces - 1) / elapsed:.1f} tok/s" if elapsed > 0 else "..."

    def _split_long_line(self) -> None:
        rows = Text(self._line).wrap(self._console, self._console.width)
        if len(rows) > _MOST_LIVE_ROWS:
            for row in rows[:-1]:
                self._console.print(row)
            self._line = rows[-1].plain


@contextmanager
def live_text() -> Iterator[Callable[[str], None]]:
    """Yields what to call with each piece of text. Leaves the whole text on the terminal, the status gone."""
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        text = _LiveText(console, live)
        try:
            yield text.show
        finally:
            text.finish()
