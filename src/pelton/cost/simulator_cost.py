"""What an engine step takes, as a line through measured steps: what the simulator's clock runs on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from ..config import SamplingParams
from ..errors import ConfigError
from ..sched.protocol import Planned, Schedule, Scheduler
from ..sched.sequence import Sequence as Tokens

if TYPE_CHECKING:
    from ..llm import LLM

_MOST_FILE_BYTES = 1 << 16


@dataclass(frozen=True)
class StepLoad:
    """What decides the cost of a step: its rows, the pairs of row and position that attention meets, and
    the sequences that take part."""

    rows: int
    attended: int
    sequences: int

    @classmethod
    def of(cls, planned: Sequence[Planned]) -> StepLoad:
        """Read before the step runs."""
        rows = attended = 0
        for item in planned:
            rows += item.rows
            attended += item.rows * (2 * item.sequence.computed + item.rows + 1) // 2
        return cls(rows, attended, len(planned))


@dataclass(frozen=True)
class StepCost:
    """seconds = fixed + row * rows + attended * pairs + sequence * sequences.

    block_bytes: of KV, for the cost of swapping. error: mean relative error over the steps it was fitted to.
    """

    fixed: float
    row: float
    attended: float
    sequence: float
    block_bytes: int = 0
    copy_bytes_per_second: float = 4e9
    error: float = 0.0
    model: str = ""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "model" and (
                isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18
            ):
                raise ConfigError("must be a number, not below 0", field=name, value=value)
        if self.fixed + self.row <= 0:
            raise ConfigError("is a step without cost", field="fixed and row", value=0)

    def seconds(self, load: StepLoad) -> float:
        return (
            self.fixed + self.row * load.rows + self.attended * load.attended + self.sequence * load.sequences
        )

    def scaled(self, factor: float) -> StepCost:
        """A machine that does `factor` times as much at once: more rows a step, not shorter steps."""
        return StepCost(
            self.fixed,
            self.row / factor,
            self.attended / factor,
            self.sequence / factor,
            self.block_bytes,
            self.copy_bytes_per_second * factor,
            self.error,
            self.model,
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> StepCost:
        """Raises ConfigError for a file that is none."""
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise ConfigError("is too large for step costs", subject=path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(**document)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"does not hold step costs: {error}", subject=path) from None


def fit(loads: Sequence[StepLoad], seconds: Sequence[float]) -> StepCost:
    """Least squares of relative errors, no coefficient below zero. Needs a dozen steps of different kinds."""
    features = np.array([(1, load.rows, load.attended, load.sequences) for load in loads], dtype=np.float64)
    times = np.array(seconds)
    weighted, ones = features / times[:, None], np.ones(len(times))
    scale = np.maximum(np.abs(weighted).max(axis=0), 1e-30)
    used = np.ones(4, dtype=bool)
    while True:
        found = np.zeros(4)
        found[used] = np.linalg.lstsq((weighted / scale)[:, used], ones, rcond=None)[0]
        if (found >= 0).all():
            break
        used &= found >= 0
    coefficients = found / scale
    error = float(np.abs(features @ coefficients / times - 1.0).mean())
    fixed, row, attended, sequence = (float(value) for value in coefficients)
    return StepCost(max(fixed, 1e-9), row, attended, sequence, error=error)


class Recorder:
    """A scheduler that notes the load of each step another one plans."""

    def __init__(self, inner: Scheduler) -> None:
        self._inner = inner
        self.load = StepLoad(0, 0, 0)

    @property
    def running(self) -> list[Tokens]:
        return self._inner.running

    @property
    def num_waiting(self) -> int:
        return self._inner.num_waiting

    @property
    def places(self) -> int:
        return self._inner.places

    def add(self, sequence: Tokens) -> None:
        self._inner.add(sequence)

    def adopt(self, sequence: Tokens) -> None:
        self._inner.adopt(sequence)

    def remove(self, sequence: Tokens) -> None:
        self._inner.remove(sequence)

    def schedule(self) -> Schedule:
        schedule = self._inner.schedule()
        self.load = StepLoad.of(schedule.planned)
        return schedule

    def ahead(self, planned: Sequence[Planned], most: int) -> int:
        return self._inner.ahead(planned, most)

    def observe(self, rows: int, seconds: float) -> None:
        self._inner.observe(rows, seconds)


def calibrate(llm: LLM, model: str = "", rounds: int = 5) -> StepCost:
    """Time whole engine steps, Python included: prompts of several lengths, few and many decoding. About
    twenty seconds for a 135M model on two cores."""
    engine = llm.engine
    recorder, before = Recorder(engine.scheduler), engine.scheduler
    engine.scheduler = recorder
    loads: list[StepLoad] = []
    seconds: list[float] = []
    random = np.random.Generator(np.random.Philox(0))
    vocab = engine.executor.plan.vocab_size
    try:
        for _ in range(rounds):
            for count, size in ((1, 16), (1, 700), (4, 200), (12, 40), (engine.max_num_seqs, 30)):
                size = min(size, engine.context_length - 30)
                params = SamplingParams(max_tokens=16, temperature=0.0, ignore_eos=True)
                for _ in range(count):
                    llm.requests.add(random.integers(0, vocab, size).tolist(), params)
                while engine.has_work:
                    start = perf_counter()
                    llm.requests.step()
                    seconds.append(perf_counter() - start)
                    loads.append(recorder.load)
    finally:
        engine.scheduler = before
    cost = fit(*_typical(loads, seconds))
    block = engine.kv.layout.block_bytes
    return StepCost(
        cost.fixed, cost.row, cost.attended, cost.sequence, block, _copy_speed(llm), cost.error, model
    )


def _typical(loads: list[StepLoad], seconds: list[float]) -> tuple[list[StepLoad], list[float]]:
    """Without the steps that took a fifth more than the fastest quarter of their like: others had the
    machine meanwhile."""
    by_kind: dict[tuple[int, int], list[float]] = {}
    for load, time in zip(loads, seconds, strict=True):
        by_kind.setdefault((load.rows, load.sequences), []).append(time)
    kept = [
        (load, time)
        for load, time in zip(loads, seconds, strict=True)
        if load.rows and time <= 1.2 * float(np.percentile(by_kind[load.rows, load.sequences], 25))
    ]
    return [load for load, _ in kept], [time for _, time in kept]


def _copy_speed(llm: LLM) -> float:
    """Bytes a second of KV blocks copied out of the arena and back."""
    arena = llm.engine.kv
    blocks = list(range(min(16, arena.num_blocks)))
    arena.restore(blocks, arena.save(blocks))
    start = perf_counter()
    arena.restore(blocks, arena.save(blocks))
    return 2 * len(blocks) * arena.layout.block_bytes / max(perf_counter() - start, 1e-9)
