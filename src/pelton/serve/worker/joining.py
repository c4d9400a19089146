"""Fewer and longer pieces where streaming would take time from the engine."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from ...outputs import StreamOutput
from .frames import Piece
from .mailbox import joined

PIECES_A_SECOND = 600.0
"""A piece costs the server 60 microseconds and a client about as much: with 48 streams and a step of 40 ms
that is 10 % of a step on two processors that the engine could use, and 5 % at this rate."""
LONGEST_SECONDS = 0.1


class Joining:
    """Joins pieces of one text that follow each other, so that about `most` go out a second in all.

    A text's first piece and its last go at once; the others together, every `texts` / `most` seconds and
    at least every 100 ms. With few streams, or steps that are longer, each piece goes by itself.
    """

    def __init__(self, most: float = PIECES_A_SECOND, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._clock = clock
        self._flushed = clock()
        self._open: set[tuple[int, int]] = set()  # texts (stream, index) that have begun
        self._held: dict[tuple[int, int], StreamOutput] = {}

    def take(self, pieces: list[Piece]) -> list[Piece]:
        """A step's pieces in; what goes out now."""
        now = self._clock()
        is_due = now - self._flushed >= min(LONGEST_SECONDS, len(self._open) / self._most)
        going = [piece for piece in map(self._after_held, pieces) if self._goes(piece, is_due)]
        if is_due:
            self._flushed = now
            going += [Piece(stream, output) for (stream, _), output in self._held.items()]
            self._held.clear()
        return going

    def drop(self, stream: int) -> None:
        """Forget a request that was cancelled."""
        for key in [key for key in self._open if key[0] == stream]:
            self._open.discard(key)
            self._held.pop(key, None)

    def _after_held(self, piece: Piece) -> Piece:
        held = self._held.pop((piece.stream, piece.output.index), None)
        return piece if held is None else Piece(piece.stream, joined(held, piece.output))

    def _goes(self, piece: Piece, is_due: bool) -> bool:
        """Whether a piece goes now; else it is held."""
        key, output = (piece.stream, piece.output.index), piece.output
        if output.finished or output.error is not None:
            self._open.discard(key)
            return True
        if is_due or key not in self._open:
            self._open.add(key)
            return True
        self._held[key] = output
        return False
