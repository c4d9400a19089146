"""A discrete-event simulator: a trace through the real schedulers, memory and prefix cache, without a model.

The idea is that of "A Scalable and Reproducible System-on-Chip Simulation for Reinforcement Learning" (DS3:
seeded jobs injected steadily into a simulated machine, to compare schedulers at any scale) and of Vidur.
Promise: the same trace gives the same figures every time, and the order of completions that the engine has.
"""

from __future__ import annotations

import heapq
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..decode.finish import FinishRules
from ..decode.history import TokenHistory
from ..decode.request import DecodeRequest
from ..kv import (
    BlockPool,
    BlockTable,
    KVArena,
    KVLayout,
    LeastRecentlyUsed,
    Prefix,
    PrefixCache,
    Swapped,
    SwapSpace,
)
from ..plan import KVShape
from ..sched.preemption import Preemption, Recompute
from ..sched.protocol import Planned
from ..sched.rates import StepRates
from ..sched.registry import MEMORY_BOUND, Machinery, make_scheduler
from ..sched.sequence import Sequence
from ..sched.service import service_of
from ..sched.swapping import Save, SwapOrRecompute
from .simulator_cost import StepCost, StepLoad
from .simulator_trace import Call, Trace

_NOTHING = KVShape(layers=1, kv_heads=1, head_dim=1)


@dataclass(frozen=True)
class SimulatedMachine:
    """An engine's limits and what its steps cost. swap_blocks: KV blocks for preempted sequences."""

    cost: StepCost
    num_blocks: int = 2048
    max_sequences: int = 32
    budget: int = 512
    swap_blocks: int = 512
    prefix_cache: bool = True
    tenant_weights: dict[str, float] = field(default_factory=dict)

    def scaled(self, factor: int) -> SimulatedMachine:
        """`factor` machines' worth of memory, places, rows and speed."""
        return SimulatedMachine(
            self.cost.scaled(factor),
            self.num_blocks * factor,
            self.max_sequences * factor,
            self.budget * factor,
            self.swap_blocks * factor,
            self.prefix_cache,
            self.tenant_weights,
        )


@dataclass
class CallResult:
    """What came of one call; seconds from the trace's start. `finished` is None if it was refused."""

    call: Call
    arrival: float
    first: float | None = None
    finished: float | None = None
    preemptions: int = 0
    cached: int = 0


@dataclass
class Simulated:
    """A run: results in the order of the trace, and totals. contended: service by tenant, in decode steps,
    during the steps at which every tenant of the trace had unfinished calls."""

    scheduler: str
    results: list[CallResult]
    finished_order: list[int] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    prompt_rows: int = 0
    generated: int = 0
    swapped: int = 0
    recomputed: int = 0
    contended: dict[str, float] = field(default_factory=dict)


def simulate(trace: Trace, scheduler: str, machine: SimulatedMachine) -> Simulated:
    """Run a trace to its end. Raises ConfigError for a scheduler that there is not."""
    return _Run(trace, scheduler, machine).to_the_end()


class _Run:
    def __init__(self, trace: Trace, name: str, machine: SimulatedMachine) -> None:
        self._trace = trace
        self._machine = machine
        self._elapsed = 0.0
        self._pool = BlockPool(machine.num_blocks)
        self._arena = KVArena(KVLayout(_NOTHING, "float16"), machine.num_blocks)
        self._space = SwapSpace(self._arena, machine.swap_blocks * self._arena.layout.block_bytes)
        self._beside = _SameThread(self._space)
        self._cache = PrefixCache(self._pool, LeastRecentlyUsed()) if machine.prefix_cache else None
        rates = StepRates(copy_bytes_per_second=machine.cost.copy_bytes_per_second)
        block = machine.cost.block_bytes
        self._preemption: Preemption = Recompute()
        if machine.swap_blocks and block:
            self._preemption = SwapOrRecompute(
                self._space, self._pool, machine.swap_blocks, block, rates, self.now, self._beside
            )
        places = max(machine.max_sequences, machine.budget) if name == MEMORY_BOUND else machine.max_sequences
        self._scheduler = make_scheduler(
            name,
            Machinery(
                self._pool, places, machine.budget, self._preemption, rates, machine.tenant_weights, self.now
            ),
        )
        self._live: dict[int, Sequence] = {}  # by sequence id: ids count up in order of arrival
        self._index_of: dict[int, int] = {}
        self._count = 0
        self._arrivals = [(call.arrival, i) for i, call in enumerate(trace.calls) if call.after is None]
        heapq.heapify(self._arrivals)
        self._followers: dict[int, list[int]] = {}
        for index, call in enumerate(trace.calls):
            if call.after is not None:
                self._followers.setdefault(call.after, []).append(index)
        self._open = dict.fromkeys(trace.tenants, 0)
        self._run = Simulated(name, [CallResult(call, call.arrival) for call in trace.calls])

    def now(self) -> float:
        """The simulated clock: steps so far, and the copies that steps waited for."""
        copied = (self._space.blocks_copied - self._beside.blocks) * self._machine.cost.block_bytes
        return self._elapsed + copied / self._machine.cost.copy_bytes_per_second

    def to_the_end(self) -> Simulated:
        while self._live or self._arrivals:
            if not self._live and self._arrivals[0][0] > self.now():
                self._elapsed += self._arrivals[0][0] - self.now()
            while self._arrivals and self._arrivals[0][0] <= self.now():
                self._arrive(heapq.heappop(self._arrivals)[1])
            self._step()
        run = self._run
        run.seconds = self.now()
        if isinstance(self._preemption, SwapOrRecompute):
            run.swapped, run.recomputed = self._preemption.swapped, self._preemption.recomputed
        return run

    def _arrive(self, index: int) -> None:
        call = self._trace.calls[index]
        result = self._run.results[index]
        result.arrival = self.now() if call.after is not None else call.arrival
        table = BlockTable(self._pool, self._arena.copy_block)
        prefix = None if self._cache is None else Prefix(self._cache, table, call.terms.cache_salt)
        decode = DecodeRequest((), True, 0, 0, None, TokenHistory(()))
        rules = FinishRules(frozenset(), frozenset(), 0, call.most)
        number, self._count = self._count, self._count + 1
        self._index_of[number] = index
        sequence = Sequence(number, call.prompt, decode, rules, table, call.terms, prefix=prefix)
        self._live[number] = sequence
        self._open[call.terms.tenant] += 1
        self._scheduler.add(sequence)

    def _step(self) -> None:
        run = self._run
        schedule = self._scheduler.schedule()
        for sequence in schedule.refused:
            self._leave(sequence, None)
        if not schedule.planned:
            assert schedule.refused or not self._live, "nothing runs though calls are open"
            return
        if all(self._open.values()):
            self._charge(schedule.planned)
        load = StepLoad.of(schedule.planned)
        seconds = self._machine.cost.seconds(load)
        self._elapsed += seconds
        self._scheduler.observe(load.rows, seconds)
        run.steps += 1
        now = self.now()
        for item in schedule.planned:
            self._commit(item, now)

    def _commit(self, item: Planned, now: float) -> None:
        sequence, run = item.sequence, self._run
        result = run.results[self._index_of[sequence.id]]
        if not sequence.is_decoding:
            run.prompt_rows += item.rows
        sequence.advance(item.rows)
        if sequence.computed < sequence.num_tokens:
            return
        sequence.append(int(result.call.answer[sequence.num_outputs]))
        run.generated += 1
        if result.first is None:
            result.first = now
        if sequence.num_outputs == len(result.call.answer):
            run.finished_order.append(self._index_of[sequence.id])
            self._leave(sequence, now)

    def _leave(self, sequence: Sequence, finished: float | None) -> None:
        index = self._index_of.pop(sequence.id)
        result = self._run.results[index]
        result.finished = finished
        result.preemptions, result.cached = sequence.preemptions, sequence.num_cached
        del self._live[sequence.id]
        self._open[result.call.terms.tenant] -= 1
        self._scheduler.remove(sequence)
        for follower in self._followers.get(index, ()):
            moment = self.now() + self._trace.calls[follower].arrival
            heapq.heappush(self._arrivals, (moment, follower))

    def _charge(self, planned: list[Planned]) -> None:
        contended = self._run.contended
        for item in planned:
            tenant = item.sequence.terms.tenant
            contended[tenant] = contended.get(tenant, 0.0) + service_of(item)


class _SameThread:
    """Does work at once, and counts the blocks it copied: in the engine they cost no time."""

    def __init__(self, space: SwapSpace) -> None:
        self._space = space
        self.blocks = 0

    def __call__(self, save: Save) -> Future[Swapped | None]:
        before = self._space.blocks_copied
        future: Future[Swapped | None] = Future()
        future.set_result(save())
        self.blocks += self._space.blocks_copied - before
        return future
