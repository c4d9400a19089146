"""Whose blocks go to another sequence when memory or a place runs out, and what a step then takes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .memory import Claims
from .policy import Rank
from .preemption import Preemption
from .protocol import Planned
from .queue import WaitingQueue
from .sequence import Sequence

MOST_PREEMPTIONS = 4
"""A sequence loses its KV at most so often; the last time it starts it gets all the blocks it may need."""
MOST_FOR_RANK = 2
"""Of these, so many may be for a better rank alone, and none that would have to be computed again: under
mlfq, at 1.4 times what a machine can serve, computing again costs a third of its throughput (simulated).
The others are left for when memory runs out."""

Place = tuple[Rank, int, Sequence]
BEST: Rank = ()
"""Before all others."""


@dataclass
class Step:
    """A step while it is planned; `left`: rows of the budget that nobody has yet."""

    left: int
    planned: list[Planned] = field(default_factory=list)
    refused: list[Sequence] = field(default_factory=list)

    def take_back(self, sequence: Sequence) -> None:
        """Undo the plan of a sequence that loses its blocks."""
        for item in self.planned:
            if item.sequence is sequence:
                self.planned.remove(item)
                self.left += item.rows
                return


class Victims:
    """Chooses among the running sequences, the worst first. Who loses its blocks leaves `running` for
    `waiting`; both are the scheduler's own."""

    def __init__(
        self,
        running: dict[int, Sequence],
        waiting: WaitingQueue,
        claims: Claims,
        preemption: Preemption,
        rank: Callable[[Sequence], Rank],
    ) -> None:
        self._running = running
        self._waiting = waiting
        self._claims = claims
        self._preemption = preemption
        self._rank = rank

    def claim_rank(self, sequence: Sequence) -> Rank:
        """Who holds a firm claim lacks a block only where forks share one of its own: nobody else could go
        on either, since its blocks are not to be had, so the forks give way whatever their rank."""
        return BEST if self._claims.is_firm(sequence) else self._rank(sequence)

    def make_room(
        self, sequence: Sequence, slots: int, rank: Rank, order: list[Place], step: Step | None
    ) -> bool:
        """Free blocks until `slots` fit, the worst resident's first; whether it worked.

        Nobody loses blocks in vain, except to the best resident, for which the estimate is not asked.
        """
        lacking = self._claims.lacking(sequence, slots)
        victims: list[Sequence] = []
        for other_rank, _, other in reversed(order):
            if lacking <= 0 or other_rank <= rank:
                break
            if other is not sequence and self._may_lose(other, for_rank=step is None):
                victims.append(other)
                lacking -= self._claims.gain(other)
        if lacking > 0:
            others = len(self._running) - 1
            if self._claims.is_firm(sequence):
                others = sum(not self._claims.is_firm(other) for other in self._running.values())
            is_best = sequence.id in self._running and len(victims) == others
            if not is_best or not victims:
                return False
        for victim in victims:
            self.evict(victim, step)
        if victims:
            order[:] = [place for place in order if place[2] not in victims]
        return True

    def evict_worst(self, order: list[Place], rank: Rank) -> bool:
        """Let the worst resident go if it is worse than `rank` and its KV is kept."""
        other_rank, _, other = order[-1]
        if other_rank <= rank or not self._may_lose(other, for_rank=True):
            return False
        self.evict(other, None)
        order.pop()
        return True

    def _may_lose(self, sequence: Sequence, *, for_rank: bool) -> bool:
        """Whether a sequence's blocks may go to another, for a better rank alone or as memory ran out."""
        if self._claims.is_firm(sequence):
            return False
        if not for_rank:
            return True
        return sequence.preemptions < MOST_FOR_RANK and self._preemption.keeps(sequence)

    def evict(self, sequence: Sequence, step: Step | None) -> None:
        if step is not None:
            step.take_back(sequence)
        del self._running[sequence.id]
        self._claims.drop(sequence)
        self._preemption.out(sequence)
        self._waiting.add(sequence)
