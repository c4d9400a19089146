"""Where the time of a pass goes: each kind of instruction's share, the rate it reaches, what bounds it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from ..engine import Engine
from ..exec.native import NativeExecutor
from ..exec.native_trace import InstructionTime
from ..plan.ops.attention import Attend
from ..quant import Format
from ..types import BLOCK_SIZE
from .machine import Machine
from .passes import PassTest, PassTimer
from .roofline import StepCost, bound_of, pass_load, step_costs

_PRODUCTS = ("linear", "experts")
_ATTENTION = "attend"


@dataclass(frozen=True)
class Share:
    """One kind of work. share: of the pass's wall time, all threads taken together. rate and peak: bytes
    or multiply-adds a second, whichever `limit` ("memory", "compute") says; None where nothing is counted.
    """

    name: str
    seconds: float
    share: float
    limit: str | None = None
    rate: float | None = None
    peak: float | None = None


@dataclass(frozen=True)
class Profile:
    """One pass of a test: its wall seconds, its kinds of work with the longest first, and what is left."""

    test: PassTest
    seconds: float
    shares: tuple[Share, ...]

    def __post_init__(self) -> None:
        assert self.seconds > 0


def profile(
    engine: Engine,
    executor: NativeExecutor,
    formats: Mapping[str, Format],
    machine: Machine,
    test: PassTest,
    chunk: int,
) -> Profile:
    """Run the test once untimed, once traced. Timing an instruction costs about 0.1 us for each thread."""
    timer = PassTimer(engine, chunk)
    timer.seconds(test)
    executor.trace(True)
    start = perf_counter()
    timer.seconds(test)
    elapsed = perf_counter() - start
    times = executor.traced()
    executor.trace(False)
    timer.close()
    costs = _costs(engine, formats, test, chunk)
    return Profile(test, elapsed, tuple(_shares(times, costs, machine, elapsed)))


def _costs(engine: Engine, formats: Mapping[str, Format], test: PassTest, chunk: int) -> list[StepCost]:
    """Costs of every pass of the test, one after another."""
    executor = engine.executor
    element = engine.kv.layout.block_bytes / (BLOCK_SIZE * executor.plan.kv.elements_per_token)
    size = chunk if test.kind == "pp" else 1
    costs: list[StepCost] = []
    for first in range(0, test.tokens, size):
        load = pass_load(
            rows=min(size, test.tokens - first),
            depth=test.depth + first,
            sequences=1,
            kv_bytes=element,
            weight_bytes=executor.weight_bytes,
        )
        costs += step_costs(executor.plan, load, formats)
    return costs


def _shares(
    times: Sequence[InstructionTime], costs: Sequence[StepCost], machine: Machine, elapsed: float
) -> Iterable[Share]:
    work: dict[str, float] = defaultdict(float)
    waiting = 0.0
    threads = max(len(times[0].work), 1)
    for time in times:
        work[_kind(time.name)] += sum(time.work) / threads * 1e-9
        waiting += sum(time.wait) / threads * 1e-9
    attention = [cost for cost in costs if isinstance(cost.step.op, Attend)]
    products = [cost for cost in costs if cost.step.op.weights and not isinstance(cost.step.op, Attend)]
    counted = {"matrix products": products, "attention": attention}
    shares = [
        _against(name, seconds, elapsed, counted.get(name, []), machine) for name, seconds in work.items()
    ]
    yield from sorted(shares, key=lambda share: -share.seconds)
    yield Share("waiting for other threads", waiting, waiting / elapsed)
    outside = max(elapsed - waiting - sum(work.values()), 0.0)
    yield Share("between passes (Python, copies)", outside, outside / elapsed)


def _kind(name: str) -> str:
    if any(part in name for part in _PRODUCTS):
        return "matrix products"
    return "attention" if name.startswith(_ATTENTION) else name


def _against(name: str, seconds: float, elapsed: float, costs: Sequence[StepCost], machine: Machine) -> Share:
    if not costs or seconds <= 0:
        return Share(name, seconds, seconds / elapsed)
    bound = bound_of(costs, machine)
    if bound.limit == "memory":
        rate, peak = bound.streamed / seconds, bound.streamed / bound.memory_seconds
    else:
        rate, peak = bound.multiply_adds / seconds, bound.multiply_adds / bound.compute_seconds
    return Share(name, seconds, seconds / elapsed, bound.limit, rate, peak)
