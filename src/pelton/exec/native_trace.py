"""What a traced program has measured: each instruction's sums, and the single events of every thread."""

from __future__ import annotations

from dataclasses import dataclass

from .native_compiled import CompiledPlan


@dataclass(frozen=True)
class InstructionTime:
    """Nanoseconds per thread since tracing began: at work, and waiting for others before and inside it."""

    name: str
    layer: int
    work: tuple[int, ...]
    wait: tuple[int, ...]


@dataclass(frozen=True)
class TraceEvent:
    """One instruction on one thread, in nanoseconds of time.perf_counter_ns().

    `start` includes the barrier before it; `wait` is how much of start..end it spent at barriers, so
    kernel time is the rest. `index` counts the instructions of the pass.
    """

    thread: int
    index: int
    name: str
    layer: int
    start: int
    end: int
    wait: int


def instruction_times(compiled: CompiledPlan) -> list[InstructionTime]:
    """The sums of all passes since tracing began, in the order of execution."""
    times = compiled.program.trace()  # [threads, instructions, 2]
    names = (about[0] for about in compiled.program.describe())
    rows = zip(names, compiled.layers, times.transpose(1, 2, 0).tolist(), strict=True)
    return [InstructionTime(name, layer, tuple(w), tuple(b)) for name, layer, (w, b) in rows]


def trace_events(compiled: CompiledPlan) -> list[TraceEvent]:
    """The events that were kept, thread after thread."""
    names = [about[0] for about in compiled.program.describe()]
    return [
        TraceEvent(thread, index, names[index], compiled.layers[index], start, end, wait)
        for thread, index, start, end, wait in compiled.program.events().tolist()
    ]
