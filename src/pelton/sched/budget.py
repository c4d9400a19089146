"""The default scheduler: one token budget a step, running sequences first, prompts fill what is left."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import OutOfBlocksError
from ..kv import BlockPool, blocks_for
from .sequence import Sequence


@dataclass(frozen=True)
class Planned:
    """A sequence and how many of its missing rows run in this step."""

    sequence: Sequence
    count: int


@dataclass(frozen=True)
class Schedule:
    """What runs; and sequences that cannot run at all because the KV arena is too small for them."""

    planned: list[Planned]
    refused: list[Sequence] = field(default_factory=list)


class Scheduler(Protocol):
    """Owns the queues. Every sequence added leaves through `remove` or a refusal."""

    def add(self, sequence: Sequence) -> None: ...

    def adopt(self, sequence: Sequence) -> None:
        """Take over a fork of a running sequence: it runs at once, its KV exists already."""

    def remove(self, sequence: Sequence) -> None: ...

    def schedule(self) -> Schedule:
        """Pick this step's rows and prepare their KV slots; may preempt."""

    @property
    def running(self) -> list[Sequence]: ...

    @property
    def num_waiting(self) -> int: ...


class TokenBudgetScheduler:
    """Stall-free batching: no step is only prefill or only decode, none exceeds the budget.

    "SARATHI: Efficient LLM Inference by Piggybacking Decodes with Chunked Prefills" and "Taming
    Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve"; Dynamic SplitFuse of "DeepSpeed-FastGen"
    composes chunks in the same way. Iteration-level admission is Orca's continuous batching and
    "Flover"'s fusion of decode steps over time.

    Promise: exact = True (a chunk's rows are the same bits as the whole prompt's); running sequences
    are never held up by a prompt, and each step runs at most `budget` rows. First come, first served;
    when blocks run out the newest running sequence is preempted and computed again later.
    """

    exact = True

    def __init__(self, pool: BlockPool, max_sequences: int, budget: int) -> None:
        self._pool = pool
        self._max_sequences = max_sequences
        self._budget = budget
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def running(self) -> list[Sequence]:
        return self._running

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def adopt(self, sequence: Sequence) -> None:
        self._running.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence wherever it is; its blocks are free afterwards."""
        if sequence in self._running:
            self._running.remove(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        sequence.table.release()

    def schedule(self) -> Schedule:
        planned: list[Planned] = []
        refused: list[Sequence] = []
        left = self._budget
        # The running ones as they are now: an earlier one may preempt a later one.
        running = self._running if len(self._running) == 1 else sorted(self._running, key=_decoding_first)
        for sequence in list(running):
            if left > 0 and sequence in self._running:
                left -= self._plan(sequence, left, planned, refused)
        while self._waiting and left > 0 and len(self._running) < self._max_sequences:
            sequence = self._waiting[0]
            if self._needed(sequence) > self._pool.num_free:
                if not self._running and not planned:
                    refused.append(self._waiting.popleft())
                    continue
                break
            self._running.append(self._waiting.popleft())
            left -= self._plan(sequence, left, planned, refused)
        return Schedule(planned, refused)

    def _needed(self, sequence: Sequence) -> int:
        """Blocks to hold a waiting sequence's tokens and one more."""
        return blocks_for(sequence.num_tokens + 1)

    def _plan(self, sequence: Sequence, left: int, planned: list[Planned], refused: list[Sequence]) -> int:
        """Prepare a sequence's next rows, preempting newer ones if blocks run out; rows planned."""
        if sequence.missing > left:
            sequence.draft = None  # a draft runs whole or not at all
        count = min(sequence.missing, left, sequence.most_rows)
        while True:
            try:
                sequence.table.prepare(sequence.computed, sequence.computed + count)
                break
            except OutOfBlocksError:
                if sequence.draft is not None:
                    sequence.draft = None
                    count = min(sequence.missing, left, sequence.most_rows)
                    continue
                victim = self._victim(sequence, planned)
                if victim is None:
                    return self._give_up(sequence, planned, refused)
                self._preempt(victim)
        planned.append(Planned(sequence, count))
        return count

    def _victim(self, sequence: Sequence, planned: list[Planned]) -> Sequence | None:
        """The newest running sequence after `sequence` that is not part of this step yet."""
        busy = {id(p.sequence) for p in planned}
        place = self._running.index(sequence)
        for other in reversed(self._running[place + 1 :]):
            if id(other) not in busy:
                return other
        return None

    def _give_up(self, sequence: Sequence, planned: list[Planned], refused: list[Sequence]) -> int:
        """Nobody newer to preempt: wait if others still run, else it can never fit."""
        others = [s for s in self._running if s is not sequence]
        if others:
            self._preempt(sequence)
        else:
            self._running.remove(sequence)
            refused.append(sequence)
        return 0

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        sequence.preempt()
        self._waiting.appendleft(sequence)


def _decoding_first(sequence: Sequence) -> bool:
    return not sequence.is_decoding
