"""A trace on the real engine: what the simulator is held against."""

from __future__ import annotations

import heapq
from time import perf_counter

import numpy as np

from ..config import SamplingParams
from ..decode.processor import RequestTokens
from ..engine import Engine
from ..sched.preemption import Recompute
from ..sched.rates import StepRates
from ..sched.registry import Machinery, make_scheduler
from .simulator import CallResult, Simulated
from .simulator_cost import Recorder, StepCost
from .simulator_trace import Trace


class _Timed(Recorder):
    """Tells its scheduler what the cost model says a step takes, where there is one."""

    cost: StepCost | None = None
    elapsed = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        if self.cost is not None:
            seconds = self.cost.seconds(self.load)
        self.elapsed += seconds
        super().observe(rows, seconds)


def replay(engine: Engine, trace: Trace, scheduler: str, cost: StepCost | None = None) -> Simulated:
    """Run a trace on an idle engine; each answer is as long as the trace says.

    Without `cost` times are the wall clock's, with the waiting for arrivals left out; with it a step takes
    what the simulator would charge, so order and times must be the simulator's own. The engine gets its
    scheduler back afterwards.
    """
    return _Replay(engine, trace.below(engine.executor.plan.vocab_size), scheduler, cost).to_the_end()


class _Replay:
    def __init__(self, engine: Engine, trace: Trace, name: str, cost: StepCost | None) -> None:
        self._engine = engine
        self._trace = trace
        self._cost = cost
        self._start = perf_counter()
        self._skipped = 0.0
        rates = StepRates()
        machinery = Machinery(
            engine.pool,
            engine.max_num_seqs,
            engine.max_num_batched_tokens,
            Recompute(),
            rates,
            clock=self.now,
        )
        self._before = engine.scheduler
        self._timed = _Timed(make_scheduler(name, machinery))
        self._timed.cost = cost
        engine.scheduler = self._timed
        self._arrivals = [(call.arrival, i) for i, call in enumerate(trace.calls) if call.after is None]
        heapq.heapify(self._arrivals)
        self._index_of: dict[int, int] = {}
        self._run = Simulated(name, [CallResult(call, call.arrival) for call in trace.calls])

    def now(self) -> float:
        """Seconds since the trace's start."""
        if self._cost is not None:
            return self._timed.elapsed + self._skipped
        return perf_counter() - self._start + self._skipped

    def to_the_end(self) -> Simulated:
        try:
            while self._index_of or self._arrivals:
                if not self._index_of:
                    self._skipped += max(0.0, self._arrivals[0][0] - self.now())
                while self._arrivals and self._arrivals[0][0] <= self.now():
                    self._arrive(heapq.heappop(self._arrivals)[1])
                self._step()
        finally:
            self._engine.scheduler = self._before
        self._run.seconds = self.now()
        return self._run

    def _arrive(self, index: int) -> None:
        call = self._trace.calls[index]
        if call.after is not None:
            self._run.results[index].arrival = self.now()
        params = SamplingParams(max_tokens=len(call.answer), temperature=0.0, ignore_eos=True)
        tokens = RequestTokens(self._engine.executor.plan.vocab_size)
        prompt = np.ascontiguousarray(call.prompt)
        (number,) = self._engine.add(prompt, params, tokens, 0, call.terms)
        self._index_of[number] = index

    def _step(self) -> None:
        events = self._engine.step()
        self._run.steps += 1
        now = self.now()
        for event in events:
            index = self._index_of[event.sequence]
            result = self._run.results[index]
            if event.token is not None:
                self._run.generated += 1
                result.first = now if result.first is None else result.first
            if event.is_last:
                del self._index_of[event.sequence]
                if event.error is None:
                    result.finished = now
                    self._run.finished_order.append(index)
                for follower, call in enumerate(self._trace.calls):
                    if call.after == index:
                        heapq.heappush(self._arrivals, (now + call.arrival, follower))
