"""A step's timeline: where each microsecond goes, in Python, in copies, in each operation, at barriers.

Nothing of it exists in an engine that is not being traced: the executor counts no time until told to, and
the marks around its calls belong to a wrapper that only a recording puts in its place (ETC's rule that an
untaken trace costs nothing).
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns

from ..exec.native import F32, NativeExecutor, NativeForward
from ..exec.native_trace import TraceEvent
from ..exec.protocol import Until
from ..kv import KVArena
from ..llm import LLM
from ..plan import Plan
from ..request import RequestState
from ..types import Batch

PYTHON_TRACK = 0
MOST_STEPS = 2000
_BEFORE, _IN, _OUT, _AFTER = "schedule and batch", "copy in", "copy out", "sample, commit, text"
_WAIT = "barrier wait"
_RUN = "run"


@dataclass(frozen=True)
class Mark:
    """One stretch of time on one track (0: Python, then the threads), in nanoseconds of one clock."""

    name: str
    track: int
    start: int
    end: int
    wait: int = 0
    layer: int | None = None

    @property
    def length(self) -> int:
        return self.end - self.start


class TimedForward:
    """A forward pass whose calls are marked."""

    def __init__(self, inner: NativeForward, marks: list[Mark]) -> None:
        self._inner = inner
        self._marks = marks
        self.read, self.write, self.taps = inner.read, inner.write, inner.taps
        self.batch, self.kv = inner.batch, inner.kv

    def advance(self, end: int | None = None) -> None:
        start = perf_counter_ns()
        self._inner.advance(end)
        self._marks.append(Mark(_RUN, PYTHON_TRACK, start, perf_counter_ns()))

    def logits(self) -> F32:
        start = perf_counter_ns()
        result = self._inner.logits()
        self._marks.append(Mark(_OUT, PYTHON_TRACK, start, perf_counter_ns()))
        return result

    def greatest(self) -> list[int]:
        start = perf_counter_ns()
        result = self._inner.greatest()
        self._marks.append(Mark(_OUT, PYTHON_TRACK, start, perf_counter_ns()))
        return result

    def feed_back(self, passes: int, until: Until) -> list[list[int]]:
        start = perf_counter_ns()
        result = self._inner.feed_back(passes, until)
        self._marks.append(Mark(_RUN, PYTHON_TRACK, start, perf_counter_ns()))
        return result


class TimedExecutor:
    """An executor whose calls are marked; it stands in an engine for as long as it is recorded."""

    def __init__(self, inner: NativeExecutor, marks: list[Mark]) -> None:
        self._inner = inner
        self._marks = marks
        self.weight_bytes: Mapping[str, int] = inner.weight_bytes

    @property
    def plan(self) -> Plan:
        return self._inner.plan

    def begin(self, batch: Batch, kv: KVArena) -> TimedForward:
        start = perf_counter_ns()
        forward = self._inner.begin(batch, kv)
        self._marks.append(Mark(_IN, PYTHON_TRACK, start, perf_counter_ns()))
        return TimedForward(forward, self._marks)

    def close(self) -> None:
        self._inner.close()


@dataclass(frozen=True)
class Timeline:
    """Recorded steps: their (start, end) and all marks within them."""

    steps: tuple[tuple[int, int], ...]
    marks: tuple[Mark, ...]
    threads: int

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self.steps) * 1e-9

    def shares(self) -> dict[str, float]:
        """Share of the steps' time by what it went to, the largest first; they add up to 1.

        A thread's time counts for its part of the team, so a barrier that one of two threads waits at
        for a microsecond is half a microsecond of the step.
        """
        total: dict[str, float] = defaultdict(float)
        ran = 0.0
        for mark in self.marks:
            if mark.track == PYTHON_TRACK:
                if mark.name == _RUN:
                    ran += mark.length
                else:
                    total[mark.name] += mark.length
            else:
                total[mark.name] += (mark.length - mark.wait) / self.threads
                total[_WAIT] += mark.wait / self.threads
        in_threads = sum(v for name, v in total.items() if name not in (_BEFORE, _IN, _OUT, _AFTER))
        total["start and end of the run"] = max(ran - in_threads, 0.0)
        whole = sum(end - start for start, end in self.steps)
        # What no mark covers: the instants between the calls, longer where the thread was not running.
        in_calls = sum(mark.length for mark in self.marks if mark.track == PYTHON_TRACK)
        total["between the calls"] = max(whole - in_calls, 0)
        return dict(sorted(((k, v / whole) for k, v in total.items()), key=lambda pair: -pair[1]))

    def chrome(self) -> str:
        """The Trace Event Format (a JSON array) that chrome://tracing and Perfetto open."""
        origin = self.steps[0][0]
        names = ["Python", *(f"thread {number}" for number in range(self.threads))]
        events: list[dict[str, object]] = [
            {"ph": "M", "pid": 1, "tid": track, "name": "thread_name", "args": {"name": name}}
            for track, name in enumerate(names)
        ]
        for number, (start, end) in enumerate(self.steps):
            events.append(_event(Mark(f"step {number}", PYTHON_TRACK, start, end), origin))
        for mark in self.marks:
            if mark.wait:
                wait = Mark(_WAIT, mark.track, mark.start, mark.start + mark.wait)
                events.append(_event(wait, origin))
            events.append(_event(replace(mark, start=mark.start + mark.wait), origin))
        return json.dumps(events, separators=(",", ":"))


def _event(mark: Mark, origin: int) -> dict[str, object]:
    place = {"ph": "X", "pid": 1, "tid": mark.track, "name": mark.name}
    times = {"ts": (mark.start - origin) / 1e3, "dur": mark.length / 1e3}
    return {**place, **times, **({} if mark.layer is None else {"args": {"layer": mark.layer}})}


def _within(runs: Sequence[Mark], event: TraceEvent) -> Mark:
    """A thread's event, cut to its run: its last instant may be noted after the caller went on."""
    run = runs[max(bisect_right(runs, event.start, key=lambda mark: mark.start) - 1, 0)]
    start = min(event.start, run.end)
    end = min(max(event.end, start), run.end)
    return Mark(event.name, event.thread + 1, start, end, min(event.wait, end - start), event.layer)


def record(llm: LLM, executor: NativeExecutor, states: Sequence[RequestState], steps: int) -> Timeline:
    """Run at most `steps` steps of requests that were added, with every call and instruction timed."""
    marks: list[Mark] = []
    bounds: list[tuple[int, int]] = []
    llm.engine.executor = TimedExecutor(executor, marks)
    executor.trace(True)
    try:
        while len(bounds) < steps and not all(state.finished for state in states):
            start, first = perf_counter_ns(), len(marks)
            llm.requests.step()
            end = perf_counter_ns()
            bounds.append((start, end))
            inside = marks[first:]
            if inside:
                marks.append(Mark(_BEFORE, PYTHON_TRACK, start, inside[0].start))
                marks.append(Mark(_AFTER, PYTHON_TRACK, inside[-1].end, end))
        timeline = executor.timeline()
    finally:
        executor.trace(False)
        llm.engine.executor = executor
    runs = [mark for mark in marks if mark.name == _RUN]
    marks += [_within(runs, event) for event in timeline]
    threads = 1 + max((event.thread for event in timeline), default=0)
    return Timeline(tuple(bounds), tuple(marks), threads)
