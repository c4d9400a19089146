"""The bounded queue: how many sequences may be under way, whose, and when to come again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import ceil
from time import monotonic

from ...errors import PeltonError
from .failures import BusyError, StoppingError

LONGEST_RETRY = 60
_WINDOW = 64


class ServiceRate:
    """Sequences ended per second of busy time, over the last 64 requests that ended."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._busy = 0.0
        self._busy_since: float | None = None
        self._ended: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def begin(self) -> None:
        """The server has something to do."""
        if self._busy_since is None:
            self._busy_since = self._clock()
            if not self._ended:
                self._ended.append((self._busy, 0))

    def end(self, sequences: int) -> None:
        """A request of so many sequences ended."""
        self._ended.append((self._now, sequences))

    def idle(self) -> None:
        """The server has nothing to do: this time does not count."""
        self._busy, self._busy_since = self._now, None

    @property
    def per_second(self) -> float | None:
        """None until something ended."""
        spent = self._now - self._ended[0][0] if self._ended else 0.0
        done = sum(count for _, count in self._ended) - (self._ended[0][1] if self._ended else 0)
        return done / spent if done and spent > 0 else None

    @property
    def _now(self) -> float:
        return self._busy + (self._clock() - self._busy_since if self._busy_since is not None else 0.0)


class Gate:
    """Counts sequences under way. `capacity` of them are let in; the engine runs `at_once` of those.

    Half of the capacity is whoever's comes first. The other half is kept in equal shares for the tenants:
    one may take another's only up to there, so nobody can fill the queue for all. `refused` is called for
    each request that is turned away.
    """

    def __init__(
        self,
        at_once: int,
        max_queue: int,
        refused: Callable[[], None],
        *,
        tenants: Collection[str] = ("",),
        most_per_tenant: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._refused = refused
        self.at_once = at_once
        self.capacity = at_once + max_queue
        self.under_way = 0
        self.stopping = False
        self.rate = ServiceRate(clock)
        self._tenants = tuple(tenants) if len(tenants) > 1 else ()
        self._share = self.capacity // (2 * len(self._tenants)) if self._tenants else 0
        self._most_per_tenant = most_per_tenant
        self._held: dict[str, int] = {}
        self._clock = clock
        self._promised = clock()
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admit(self, sequences: int, tenant: str = "") -> Iterator[None]:
        """Let a request in for as long as the block runs. Raises BusyError, or StoppingError near the end.

        A request larger than what there is for it is let in when nothing else is under way.
        """
        if self.stopping:
            raise StoppingError("the server is stopping")
        refusal = self.refusal(sequences, tenant)
        if refusal is not None:
            raise refusal
        self._change(sequences, tenant)
        self._empty.clear()
        self.rate.begin()
        served = True
        try:
            yield
        except PeltonError:
            served = False  # a wrong request says nothing about how long a right one takes
            raise
        finally:
            if served:
                self.rate.end(sequences)
            self._change(-sequences, tenant)
            if not self.under_way:
                self.rate.idle()
                self._empty.set()

    def refusal(self, sequences: int, tenant: str = "") -> BusyError | None:
        """What a request of so many sequences would be told now; None if it would be let in."""
        fault = self._fault(sequences, tenant)
        if fault is None:
            return None
        self._refused()
        return BusyError(fault, self.wait(sequences))

    def _fault(self, sequences: int, tenant: str) -> str | None:
        held, most = self._held.get(tenant, 0), self._most_per_tenant
        if most is not None and held and held + sequences > most:
            return f"{held} sequences of this API key are under way, the most is {most}"
        kept = sum(max(0, self._share - self._held.get(o, 0)) for o in self._tenants if o != tenant)
        is_own = held + sequences <= self._share  # its own even where one request alone took all there is
        if self.under_way and not is_own and self.under_way + sequences > self.capacity - kept:
            for_others = f", {kept} kept for other API keys" if kept else ""
            return f"{self.under_way} sequences are under way, the most is {self.capacity}{for_others}"
        return None

    def _change(self, sequences: int, tenant: str) -> None:
        self.under_way += sequences
        self._held[tenant] = self._held.get(tenant, 0) + sequences
        if not self._held[tenant]:
            del self._held[tenant]

    def wait(self, sequences: int) -> int:
        """Whole seconds after which there is probably room, at the rate at which sequences end.

        Each who asks is told a time after the one before, so that not all come again at once; but nobody
        later than a full queue takes to drain.
        """
        rate = self.rate.per_second
        if rate is None:
            return 1
        now = self._clock()
        later = max(now, self._promised) + sequences / rate
        self._promised = min(later, now + self.capacity / rate)
        return min(LONGEST_RETRY, max(1, ceil(self._promised - now)))

    async def drain(self, seconds: float) -> bool:
        """Let nobody in any more and wait for those inside; False if some are left after `seconds`."""
        self.stopping = True
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True
