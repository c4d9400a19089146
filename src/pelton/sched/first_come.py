"""First come, first served: the order of the default scheduler."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from .policy import Rank, next_slots
from .protocol import Planned
from .sequence import Sequence


class FirstComeFirstServed:
    """Sequence ids count up as requests arrive; who was preempted is the first to run again.

    Promise: exact = True; whoever came first is never held up by who came later, and when blocks run
    out the newest gives way. Costs nothing a step.
    """

    exact = True
    preemptive = False
    restless = False
    tries = 1
    by_age = 0

    def added(self, sequence: Sequence, now: float) -> None:
        pass

    def rank(self, sequence: Sequence, now: float) -> Rank:
        return ()

    def slots(self, sequence: Sequence) -> int | None:
        return next_slots(sequence)

    def ran(self, planned: Seq[Planned], now: float) -> None:
        pass

    def removed(self, sequence: Sequence, now: float) -> None:
        pass
