"""Sequences under a scheduler without a model: a row writes a number that depends on all tokens before it
into its KV slot, and whoever runs later must find the right numbers in all slots below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pelton.decode.finish import FinishRules
from pelton.decode.history import TokenHistory
from pelton.decode.request import DecodeRequest
from pelton.kv import (
    BlockPool,
    BlockTable,
    KVArena,
    KVLayout,
    LeastRecentlyUsed,
    Prefix,
    PrefixCache,
    SwapSpace,
)
from pelton.plan import KVShape
from pelton.sched.preemption import Preemption, Recompute
from pelton.sched.protocol import Planned, Schedule
from pelton.sched.rates import StepRates
from pelton.sched.registry import Machinery, make_scheduler
from pelton.sched.sequence import Sequence
from pelton.sched.swapping import SwapOrRecompute
from pelton.sched.victims import MOST_PREEMPTIONS
from pelton.terms import ORDINARY, RequestTerms
from pelton.types import BLOCK_SIZE

SHAPE = KVShape(layers=1, kv_heads=1, head_dim=1)
COPY_SECONDS = 1e-6
"""A copied block's time: by the real clock a trace would not be the same twice."""
_MODULUS = 1 << 20


@dataclass
class Marks:
    """A number for each token that depends on it and on all before, exact in float32."""

    values: np.typing.NDArray[np.float32]
    known: int = 0

    def upto(self, tokens: np.typing.NDArray[np.int32]) -> np.typing.NDArray[np.float32]:
        value = int(self.values[self.known - 1]) if self.known else 1
        for at in range(self.known, len(tokens)):
            value = (value * 31 + int(tokens[at]) + 7) % _MODULUS
            self.values[at] = value
        self.known = max(self.known, len(tokens))
        return self.values[: len(tokens)]


@dataclass
class World:
    """A scheduler, its memory, and a clock that a step moves by 10 ms. Ends are recorded by sequence id."""

    name: str
    blocks: int = 12
    max_sequences: int = 4
    budget: int = 16
    swap_blocks: int = 0
    cached: bool = False
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = 0.0
        self.pool = BlockPool(self.blocks)
        self.arena = KVArena(KVLayout(SHAPE, "float32"), self.blocks)
        self.cache = PrefixCache(self.pool, LeastRecentlyUsed()) if self.cached else None
        rates = StepRates()
        self.preemption: Preemption = Recompute()
        if self.swap_blocks:
            block = self.arena.layout.block_bytes
            space = SwapSpace(self.arena, self.swap_blocks * block)
            self.preemption = SwapOrRecompute(
                space, self.pool, self.swap_blocks, block, rates, lambda: COPY_SECONDS * space.blocks_copied
            )
        self.scheduler = make_scheduler(
            self.name,
            Machinery(
                self.pool,
                self.max_sequences,
                self.budget,
                self.preemption,
                rates,
                self.weights,
                lambda: self.now,
            ),
        )
        self.live: dict[int, Sequence] = {}
        self.lengths: dict[int, int] = {}
        self.marks: dict[int, Marks] = {}
        self.ends: dict[int, str] = {}
        self.rows_of: dict[int, int] = {}
        self.added = 0
        self.steps = 0
        self.prompt_rows = 0
        self.quiet_steps = self.still_steps = 0
        self.longest_quiet = 0
        """Steps without a token, an end or a refusal."""
        self.longest_still = 0
        """Steps that brought nobody further than it had been before."""
        self.furthest: dict[int, int] = {}
        self.finished_order: list[int] = []
        self.computed_rows = 0

    def add(
        self,
        prompt: np.typing.NDArray[np.int32] | int,
        length: int,
        terms: RequestTerms = ORDINARY,
        most: int | None = None,
    ) -> Sequence:
        """A request that ends after `length` tokens of `most`; a number is a prompt of random tokens."""
        if isinstance(prompt, int):
            prompt = np.random.default_rng(self.added).integers(0, 50, prompt).astype(np.int32)
        table = BlockTable(self.pool, self.arena.copy_block)
        rules = FinishRules(frozenset(), frozenset(), 0, most or max(length, 1))
        decode = DecodeRequest((), True, 0, 0, None, TokenHistory(prompt.tolist()))
        prefix = None if self.cache is None else Prefix(self.cache, table, terms.cache_salt)
        sequence = Sequence(self.added, prompt, decode, rules, table, terms, prefix=prefix)
        self._know(sequence, length)
        self.prompt_rows += len(prompt)
        self.scheduler.add(sequence)
        return sequence

    def fork(self, sequence: Sequence, length: int) -> Sequence:
        """A copy of a running sequence that goes on by itself."""
        twin = sequence.fork(self.added, sequence.decode.fork(1))
        self.marks[self.added] = Marks(self.marks[sequence.id].values.copy(), self.marks[sequence.id].known)
        self._know(twin, max(length, twin.num_outputs + 1))
        twin.rules = FinishRules(frozenset(), frozenset(), 0, self.lengths[twin.id])
        twin._tokens = np.concatenate([twin.tokens, np.zeros(self.lengths[twin.id], np.int32)])
        self.scheduler.adopt(twin)
        return twin

    def abort(self, sequence: Sequence) -> None:
        self._end(sequence, "aborted")

    def step(self) -> Schedule:
        """Schedule, check what must hold of every schedule, run it."""
        self.steps += 1
        schedule = self.scheduler.schedule()
        self._check(schedule)
        for sequence in schedule.refused:
            self._end(sequence, "refused")
        before = sum(self.furthest.values())
        progress = bool(schedule.refused)
        for item in schedule.planned:
            progress |= self._run(item)
        self._note(progress or not self.live, sum(self.furthest.values()) > before)
        self.now += 0.01
        self.scheduler.observe(max(1, sum(item.rows for item in schedule.planned)), 0.01)
        self.pool.check([sequence.table for sequence in self.live.values()])
        return schedule

    def run(self, most_steps: int = 20_000, each: Callable[[], None] = lambda: None) -> None:
        """Step until nobody is left."""
        while self.live:
            self.step()
            each()
            assert self.steps < most_steps, f"{len(self.live)} left after {self.steps} steps"
        assert self.pool.num_free == self.pool.num_blocks

    def _note(self, progress: bool, further: bool) -> None:
        self.quiet_steps = 0 if progress else self.quiet_steps + 1
        self.still_steps = 0 if progress or further else self.still_steps + 1
        self.longest_quiet = max(self.longest_quiet, self.quiet_steps)
        self.longest_still = max(self.longest_still, self.still_steps)

    def _know(self, sequence: Sequence, length: int) -> None:
        self.live[sequence.id] = sequence
        self.marks.setdefault(sequence.id, Marks(np.zeros(1000, np.float32)))
        self.lengths[sequence.id] = length
        self.added += 1

    def _check(self, schedule: Schedule) -> None:
        ids = [item.sequence.id for item in schedule.planned]
        assert len(set(ids)) == len(ids)
        assert sum(item.rows for item in schedule.planned) <= self.budget
        running = {id(sequence) for sequence in self.scheduler.running}
        for item in schedule.planned:
            sequence = item.sequence
            assert sequence.id in self.live
            assert 0 < item.rows <= sequence.missing
            assert id(sequence) in running
        for sequence in self.live.values():
            assert sequence.preemptions <= MOST_PREEMPTIONS
            if id(sequence) not in running:
                assert not sequence.table.blocks, "a waiting sequence holds blocks"
        gone = len(schedule.refused)
        assert len(running) + self.scheduler.num_waiting + gone == len(self.live)
        for sequence in schedule.refused:
            assert (sequence.num_tokens + 1) / BLOCK_SIZE > self.blocks - 2, "refused though it would fit"

    def _run(self, item: Planned) -> bool:
        """Write the rows of one sequence after checking its context; whether it got a token."""
        sequence, count = item.sequence, item.rows
        expected = self.marks[sequence.id].upto(sequence.tokens)
        blocks, keys = sequence.table.array, self.arena.keys[:, 0, 0, 0]
        stored = keys[blocks].reshape(-1)[: sequence.computed]
        assert np.array_equal(stored, expected[: sequence.computed]), f"{sequence.id} meets foreign keys"
        slots = np.arange(sequence.computed, sequence.computed + count)
        written = blocks[slots // BLOCK_SIZE]
        assert not any(map(self.pool.is_shared, written.tolist())), "a shared block would be written"
        keys[written, slots % BLOCK_SIZE] = expected[slots]
        self.computed_rows += count
        self.rows_of[sequence.id] = self.rows_of.get(sequence.id, 0) + count
        sequence.advance(count)
        self.furthest[sequence.id] = max(self.furthest.get(sequence.id, 0), sequence.computed)
        if sequence.computed < sequence.num_tokens:
            return False
        sequence.append(int(expected[-1]) % 50)
        if sequence.num_outputs >= self.lengths[sequence.id]:
            self._end(sequence, "finished")
        return True

    def _end(self, sequence: Sequence, how: str) -> None:
        assert sequence.id not in self.ends, "a sequence left twice"
        self.ends[sequence.id] = how
        if how == "finished":
            self.finished_order.append(sequence.id)
        del self.live[sequence.id]
        self.scheduler.remove(sequence)
        assert not sequence.table.blocks
