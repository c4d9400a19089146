"""The scheduler: one token budget a step, shared out in the order that a policy gives."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from itertools import islice
from time import monotonic

from ..kv import BlockPool
from ..types import BLOCK_SIZE
from .first_come import FirstComeFirstServed
from .memory import Claims
from .policy import Policy, Rank, next_slots
from .preemption import Preemption, Recompute
from .protocol import Planned, Schedule, Scheduler
from .queue import WaitingQueue
from .rates import StepRates
from .sequence import Sequence
from .victims import BEST, MOST_PREEMPTIONS, Place, Step, Victims

__all__ = ["Planned", "Schedule", "Scheduler", "TokenBudgetScheduler"]

RESIDENTS = 2
"""Residents for each place under preemptive policies: with more, memory runs out under those that run, which
doubled the mean completion time under mlfq at 1.2 times what a machine can serve (simulated)."""
PAUSED_STEPS = 8
"""Every so many steps the resident that has not run for longest gets a place, whatever its rank."""


class TokenBudgetScheduler:
    """Stall-free batching: no step is only prefill or only decode, none exceeds the budget.

    "SARATHI: Efficient LLM Inference by Piggybacking Decodes with Chunked Prefills" and "Taming
    Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve"; Dynamic SplitFuse of "DeepSpeed-FastGen"
    composes chunks in the same way. Iteration-level admission is Orca's continuous batching and
    "Flover"'s fusion of decode steps over time.

    Residents hold KV blocks, the others wait. A step first lets better waiting sequences take the places
    and blocks of worse residents (preemptive policies only; a resident without a place keeps its KV), then
    plans decoding residents, then prompts, then admits who waits as far as rows and blocks allow.

    Promise: exact = True (a chunk's rows are the same bits as the whole prompt's); decoding sequences are
    never held up by a prompt; each step runs at most `budget` rows. It never stands still: the best
    resident may take any other's blocks, except those of a sequence that was preempted so often that it
    holds a firm claim on all it can need, and that one runs to its end.
    """

    exact = True

    def __init__(
        self,
        pool: BlockPool,
        max_sequences: int,
        budget: int,
        policy: Policy | None = None,
        preemption: Preemption | None = None,
        rates: StepRates | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._pool = pool
        self._max_sequences = max_sequences
        self._budget = budget
        self._policy: Policy = policy or FirstComeFirstServed()
        self._preemption: Preemption = preemption or Recompute()
        self._rates = rates or StepRates()
        self._clock = clock
        self._now = 0.0
        self._claims = Claims(pool)
        self._waiting = WaitingQueue(self._rank)
        self._running: dict[int, Sequence] = {}  # by id, in the order of starting
        self._victims = Victims(self._running, self._waiting, self._claims, self._preemption, self._rank)
        self._last_ran: dict[int, int] = {}
        self._steps = 0
        self._starts = 0

    @property
    def running(self) -> list[Sequence]:
        return list(self._running.values())

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def places(self) -> int:
        return max(0, self._max_sequences - len(self._running))

    def add(self, sequence: Sequence) -> None:
        self._now = self._clock()
        if sequence.arrival is None:
            for member in (sequence, *sequence.followers):
                member.arrival = self._now
        self._policy.added(sequence, self._now)
        self._waiting.add(sequence)

    def adopt(self, sequence: Sequence) -> None:
        self._policy.added(sequence, self._clock())
        self._running[sequence.id] = sequence

    def remove(self, sequence: Sequence) -> None:
        if self._running.pop(sequence.id, None) is not None:
            self._forget(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
            self._forget(sequence)
        sequence.release()

    def ahead(self, planned: Seq[Planned], most: int) -> int:
        """1 where somebody waits, for a place or as an order may change with each step. Policies without
        preemption look at prompts alone: they need not hear of the later passes."""
        if self._waiting or self._policy.preemptive or len(planned) < len(self._running):
            return 1
        ready = all(self._claims.prepare(item.sequence, item.sequence.computed + most) for item in planned)
        return most if ready else 1

    def observe(self, rows: int, seconds: float) -> None:
        self._rates.observe(rows, seconds)

    def schedule(self) -> Schedule:
        self._preemption.settle()
        self._claims.begin_step()
        self._now = self._clock()
        self._steps += 1
        step = Step(self._budget)
        if self._policy.restless:
            self._waiting.rank_again()
        if self._policy.preemptive:
            order = self._order()
            self._displace(order)
            residents = [sequence for _, _, sequence in order]
            self._plan_all(self._with_a_place(residents), step)
        else:
            residents = self.running
            self._plan_all(residents, step)
        self._admit(step)
        self._plan_idle(residents, step)
        if self._policy.preemptive:
            self._preemption.anticipate(reversed(residents))
            self._last_ran.update((item.sequence.id, self._steps) for item in step.planned)
        self._policy.ran(step.planned, self._now)
        return Schedule(step.planned, step.refused)

    def _rank(self, sequence: Sequence) -> Rank:
        return (*self._policy.rank(sequence, self._now), sequence.id)

    def _order(self) -> list[Place]:
        """The residents, best first."""
        return sorted((self._rank(sequence), sequence.id, sequence) for sequence in self._running.values())

    # Who gets a place

    def _displace(self, order: list[Place]) -> None:
        """Start waiting sequences that are better than a resident, or than what has a place."""
        while self._waiting:
            by_age = self._is_turn_of_age()
            sequence, rank = self._waiting.best()
            if by_age:
                sequence, rank = self._waiting.longest_waiting(), BEST
            ahead = [s for r, _, s in order[: self._max_sequences] if s.is_decoding or r <= rank]
            if len(order) >= self._max_sequences and rank >= order[self._max_sequences - 1][0]:
                return
            if sum(min(s.missing, self._budget) for s in ahead) >= self._budget:
                return
            slots = self._slots(sequence)
            if slots is None or not self._victims.make_room(sequence, slots, rank, order, None):
                return
            if len(order) >= RESIDENTS * self._max_sequences and not self._victims.evict_worst(order, rank):
                return
            self._start(sequence, slots)
            insort(order, (rank, sequence.id, sequence))

    def _with_a_place(self, residents: list[Sequence]) -> list[Sequence]:
        """The best residents; now and then the last place goes to who has been paused for longest."""
        most = self._max_sequences
        if len(residents) <= most or self._steps % PAUSED_STEPS:
            return residents[:most]
        longest = min(residents[most - 1 :], key=lambda s: self._last_ran.get(s.id, 0))
        return [*residents[: most - 1], longest]

    def _admit(self, step: Step) -> None:
        while self._waiting and step.left > 0 and len(self._running) < self._max_sequences:
            found = self._fitting(step)
            if found is None:
                return
            sequence, slots = found
            self._start(sequence, slots)
            self._plan(sequence, step)

    def _fitting(self, step: Step) -> tuple[Sequence, int] | None:
        """The waiting sequence to start next, and its slots. What can never run is refused on the way."""
        if self._is_turn_of_age():
            candidates: Iterable[Sequence] = [self._waiting.longest_waiting()]
        else:
            candidates = list(self._waiting.ordered(self._policy.tries))
        for sequence in candidates:
            slots = self._slots(sequence)
            if slots is not None and self._claims.lacking(sequence, slots) <= 0:
                return sequence, slots
            if not self._running and self._claims.lacking(sequence, next_slots(sequence)) > 0:
                self._waiting.remove(sequence)
                self._refuse(sequence, step)
                return self._fitting(step) if self._waiting else None
        return None

    def _is_turn_of_age(self) -> bool:
        every = self._policy.by_age
        return every > 0 and self._starts % every == every - 1

    def _slots(self, sequence: Sequence) -> int | None:
        """KV slots to set aside for a sequence that starts."""
        slots = self._policy.slots(sequence)
        if slots is None:
            return None
        if sequence.preemptions >= MOST_PREEMPTIONS - 1:
            copies = BLOCK_SIZE if sequence.followers else 0  # siblings will share its last block
            slots = sequence.num_prompt + sequence.rules.max_tokens + copies
        if not self._running:  # alone: whatever it was to get, it may begin
            slots = max(next_slots(sequence), min(slots, self._pool.num_free * BLOCK_SIZE))
        return slots

    def _start(self, sequence: Sequence, slots: int) -> None:
        self._starts += 1
        self._waiting.remove(sequence)
        self._running[sequence.id] = sequence
        self._preemption.back(sequence)
        sequence.start()  # what it shares with others must not go before it runs
        self._claims.claim(sequence, slots, firm=sequence.preemptions >= MOST_PREEMPTIONS - 1)

    # What runs

    def _plan_all(self, residents: list[Sequence], step: Step) -> None:
        """Decoding ones first, so that no prompt holds them up."""
        if len(residents) > 1:
            residents = sorted(residents, key=_decoding_first)
        for sequence in residents:
            if step.left > 0 and sequence.id in self._running:
                self._plan(sequence, step)

    def _plan_idle(self, residents: list[Sequence], step: Step) -> None:
        """Rows left because some of the best could not get blocks go to residents without a place."""
        if step.left <= 0 or len(step.planned) >= min(len(self._running), self._max_sequences):
            return
        planned = {item.sequence.id for item in step.planned}
        places = self._max_sequences - len(planned)
        idle = (s for s in residents if s.id not in planned and s.id in self._running)
        self._plan_all(list(islice(idle, places)), step)

    def _plan(self, sequence: Sequence, step: Step) -> None:
        """Prepare a sequence's next rows, taking blocks from worse residents if they run out."""
        sequence.start()
        count = sequence.fit(step.left)
        while not self._claims.prepare(sequence, sequence.computed + count):
            if sequence.draft is not None:
                sequence.draft = None
                count = sequence.fit(step.left)
            elif len(self._running) == 1:
                del self._running[sequence.id]
                self._refuse(sequence, step)
                return
            elif not self._victims.make_room(
                sequence, sequence.computed + count, self._victims.claim_rank(sequence), self._order(), step
            ):
                return  # its turn comes when better ones have ended
        step.planned.append(Planned(sequence, count))
        step.left -= count

    def _refuse(self, sequence: Sequence, step: Step) -> None:
        self._forget(sequence)
        sequence.release()
        step.refused.append(sequence)

    def _forget(self, sequence: Sequence) -> None:
        self._claims.drop(sequence)
        self._preemption.forget(sequence)
        self._last_ran.pop(sequence.id, None)
        self._policy.removed(sequence, self._now)


def _decoding_first(sequence: Sequence) -> bool:
    return not sequence.is_decoding
