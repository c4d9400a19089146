"""The bounded queue: how many sequences may be under way, and when to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from time import monotonic

from .failures import BusyError, StoppingError

LONGEST_RETRY = 60
_SMOOTHING = 0.1


class Gate:
    """Counts sequences under way. `capacity` of them are let in; the engine runs `at_once` of those.

    `refused` is called for each request that finds the queue full.
    """

    def __init__(self, at_once: int, max_queue: int, refused: Callable[[], None]) -> None:
        self._refused = refused
        self.at_once = at_once
        self.capacity = at_once + max_queue
        self.under_way = 0
        self.stopping = False
        self._mean_seconds = 1.0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admit(self, sequences: int) -> Iterator[None]:
        """Let a request in for as long as the block runs. Raises BusyError, or StoppingError near the end.

        A request larger than the whole queue is let in when nothing else is under way.
        """
        if self.stopping:
            raise StoppingError("the server is stopping")
        if self.under_way and self.under_way + sequences > self.capacity:
            self._refused()
            raise BusyError(
                f"{self.under_way} sequences are under way, the most is {self.capacity}", self.wait()
            )
        began = monotonic()
        self.under_way += sequences
        self._empty.clear()
        try:
            yield
        finally:
            self._mean_seconds += _SMOOTHING * (monotonic() - began - self._mean_seconds)
            self.under_way -= sequences
            if not self.under_way:
                self._empty.set()

    def wait(self) -> int:
        """Whole seconds after which one of those under way has probably made room."""
        return min(LONGEST_RETRY, max(1, ceil(self._mean_seconds / self.at_once)))

    async def drain(self, seconds: float) -> bool:
        """Let nobody in any more and wait for those inside; False if some are left after `seconds`."""
        self.stopping = True
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True
