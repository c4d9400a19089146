"""The native executor: a plan compiled into a C++ program, weights packed once, one call a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import _native
from .._native import RowSampler, ThreadPool, Workspace, isa_levels, resolve_isa
from ..errors import EngineStoppedError, PlanError
from ..kv import KVArena
from ..plan import Plan, verify
from ..quant.tensor import Weight
from ..types import ALL_ROWS, Batch
from .feedback import feed_back
from .native_compiled import CompiledPlan, Target
from .native_pairs import paired_weights
from .native_program import compile_plan
from .native_screen import Screening
from .native_trace import InstructionTime, TraceEvent, instruction_times, trace_events
from .native_tuning import UNTUNED, Readings, tuned
from .native_weights import NativeWeights
from .protocol import Until

F32 = NDArray[np.float32]

_KEPT_PROGRAMS = 32
"""Compiled variants kept for cuts inside layers; a variant holds no weights, only its instruction list."""


def native_module() -> Path:
    """The file of the native core: another build may round another way."""
    return Path(_native.__file__)


def available_levels() -> list[str]:
    """Instruction-set levels that this build has and this processor runs, slowest first."""
    return isa_levels()


def level_of(isa: str | None) -> str:
    """The level that a setting names; None means PELTON_ISA or else the fastest. Raises ConfigError."""
    return resolve_isa(isa or "")


class NativeForward:
    """One pass over one batch; see exec.protocol.Forward."""

    def __init__(self, executor: NativeExecutor, batch: Batch, kv: KVArena) -> None:
        self._executor = executor
        self.batch = batch
        self.kv = kv
        self.taps: dict[str, F32] = {}
        self._next = 0
        self._cuts: frozenset[int] = frozenset()
        self._start(self._cuts)

    def _start(self, cuts: frozenset[int]) -> None:
        self._cuts = cuts
        self._compiled = self._executor.compiled(cuts)
        batch = self.batch
        self._compiled.program.begin(
            batch.tokens,
            batch.positions,
            batch.slots,
            batch.parents,
            batch.span_start,
            batch.context,
            batch.is_tree,
            batch.tables,
            [batch.rows(name) for name in self._compiled.row_sets],
            self.kv.keys,
            self.kv.values,
            batch.only_greatest,
        )

    def advance(self, end: int | None = None) -> None:
        """Run the steps up to `end`. A cut inside a layer gets a program of its own when first used."""
        self._check_current()
        stop = len(self._executor.plan.steps) if end is None else end
        if not 0 <= stop <= len(self._executor.plan.steps):
            raise PlanError("there is no such step", field="end", value=stop)
        if stop <= self._next:
            return
        if stop not in self._compiled.ends:
            self._switch(stop)
        ends = self._compiled.ends
        self._compiled.program.run(ends[self._next], ends[stop])
        if self._compiled.taps:
            self._collect_taps(stop)
        self._next = stop

    def _switch(self, cut: int) -> None:
        """Go on in a program that can stop at `cut`, carrying over what is live here."""
        if self._next == 0:
            self._start(self._cuts | {cut})
            return
        live = {value: self.read(value) for value in self._executor.plan.live_at(self._next)}
        self._start(self._cuts | {self._next, cut})
        for value, array in live.items():
            self.write(value, array)

    def _collect_taps(self, stop: int) -> None:
        program = self._compiled.program
        for tap in self._compiled.taps:
            if self._next <= tap.step < stop:
                self.taps[tap.name] = program.read(tap.value) if tap.value >= 0 else program.mass(tap.mass)

    def _live(self, value: int) -> int:
        self._check_current()
        if value not in self._executor.plan.live_at(self._next):
            raise PlanError(f"is not live before step {self._next}", subject=f"%{value}")
        return self._compiled.values[value]

    def read(self, value: int) -> F32:
        """A copy of a value that is live at the current step, float32 [rows, width]."""
        return self._compiled.program.read(self._live(value))

    def write(self, value: int, array: F32) -> None:
        """Replace a value that is live at the current step; ValueError if the shape is another."""
        self._compiled.program.write(self._live(value), np.ascontiguousarray(array, dtype=np.float32))

    def logits(self) -> F32:
        """float32 [R, V] after the last step; valid until the next forward pass begins."""
        if self.batch.only_greatest:
            raise PlanError("the batch asked for the greatest logits only", subject="forward")
        return self._logits()

    def greatest(self) -> list[int]:
        """The most likely token of each row, -1 where there is none; see exec.protocol.Forward."""
        self._check_end()
        found = self._compiled.program.greatest()
        if found is None:
            return self._executor.most_likely(np.ascontiguousarray(self._logits()))
        return [found[row] for row in self.batch.outputs] if self._has_all_rows else found

    def feed_back(self, passes: int, until: Until) -> list[list[int]]:
        """Several greedy passes in one call; see exec.protocol.Forward."""
        self._check_current()
        if self._next > 0 or not self._compiled.has_head or self._compiled.taps:
            return feed_back(self._executor, self, passes, until)
        self._executor.current = None  # another batch takes this one's place
        texts = [np.ascontiguousarray(text) for text in until.texts.values()]
        found = self._compiled.program.feed_back(
            passes, list(until.ends), list(until.texts), texts, until.repeated
        )
        self._executor.prepare_screen(len(found) - 1)
        return found

    def _logits(self) -> F32:
        self._check_end()
        result = self._compiled.program.view(self._compiled.values[self._executor.plan.logits])
        return result[self.batch.outputs] if self._has_all_rows else result

    @property
    def _has_all_rows(self) -> bool:
        """Whether there are logits of rows that none were wanted of."""
        plan = self._executor.plan
        return plan.shapes[plan.logits].rows == ALL_ROWS

    def _check_end(self) -> None:
        self._check_current()
        count = len(self._executor.plan.steps)
        if self._next < count:
            raise PlanError(f"stands at step {self._next} of {count}; logits come last", subject="forward")

    def _check_current(self) -> None:
        if self._executor.current is not self:
            raise PlanError("another forward pass has begun since", subject="forward")


class NativeExecutor:
    """Runs one plan with the C++ core; see exec.protocol.Executor.

    `weights` are packed here, each in parallel; one is loaded at a time, and its data is not needed
    afterwards. `isa` names an instruction-set level, None means PELTON_ISA or else the fastest.
    `tuning_folder` is where native_tuning remembers what is fastest on this machine; None measures
    nothing. Raises PlanError, KernelUnsupportedError, ConfigError, ModelFileError.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, Weight],
        threads: int,
        isa: str | None = None,
        tuning_folder: Path | None = None,
    ) -> None:
        verify(plan)
        self.plan = plan
        self.isa = level_of(isa)
        workspace = Workspace()
        pool = ThreadPool(threads, workspace.reserve)
        packed = NativeWeights(weights, plan.weight_shapes, pool, paired_weights(plan, weights))
        self._target: Target | None = Target(pool, workspace, self.isa, packed, weights, Screening(pool))
        self._sampler: RowSampler | None = RowSampler(pool, self.isa)
        self._programs: dict[frozenset[int], CompiledPlan] = {}
        self._sharing, self._readings = True, UNTUNED
        self.current: NativeForward | None = None
        self.compiled(frozenset())
        self.weights = weights
        self.weight_bytes: Mapping[str, int] = {name: packed.num_bytes(name) for name in plan.weights}
        self.packed_bytes = packed.total_bytes
        if tuning_folder is not None:
            self.read_weights(tuned(tuning_folder, packed.packed, pool, self.isa))

    def compiled(self, cuts: frozenset[int]) -> CompiledPlan:
        """The program that can stop at these cuts and the ends of layers."""
        if self._target is None:
            raise EngineStoppedError("the executor is closed")
        if cuts not in self._programs:
            if len(self._programs) >= _KEPT_PROGRAMS:
                self._programs.pop(next(key for key in self._programs if key))
            self._programs[cuts] = compile_plan(self.plan, self._target, cuts)
            self._programs[cuts].program.set_share_prefixes(self._sharing)
            self._programs[cuts].program.set_readings(*(way.native() for way in self._readings))
        return self._programs[cuts]

    def begin(self, batch: Batch, kv: KVArena) -> NativeForward:
        """Start a pass; the one before ends. ValueError for a batch whose indices lie outside."""
        self.current = None
        if batch.only_greatest:
            self.prepare_screen(1)
        forward = NativeForward(self, batch, kv)
        self.current = forward
        return forward

    def prepare_screen(self, passes: int) -> None:
        """What so many passes that want the greatest logits only do for those after them."""
        if self._target is not None:
            for _ in range(passes):
                self._target.screening.advance()

    def most_likely(self, logits: F32) -> list[int]:
        """The most likely token of each row of `logits` [R, V]; see decode.shape.RowChooser."""
        return self._chooser().most_likely(logits)

    def choose(self, logits: F32, rows: Sequence[tuple[int, float, float, int, float, float]]) -> list[int]:
        """One token for each of `rows` of `logits` [R, V]; see decode.shape.RowChooser."""
        return self._chooser().choose(logits, rows)

    def _chooser(self) -> RowSampler:
        if self._sampler is None:
            raise EngineStoppedError("the executor is closed")
        return self._sampler

    def trace(self, on: bool) -> None:
        """Start (from zero) or stop timing every instruction of passes that are not cut inside layers."""
        self.compiled(frozenset()).program.set_trace(on)

    def traced(self) -> list[InstructionTime]:
        """What was measured since tracing was switched on, in the order of execution."""
        return instruction_times(self.compiled(frozenset()))

    def timeline(self) -> list[TraceEvent]:
        """The same one by one, thread after thread: the first 262,144 of each since tracing began."""
        return trace_events(self.compiled(frozenset()))

    def read_weights(self, readings: Readings) -> None:
        """How products read their weights; see native_tuning. Changes no result."""
        self._readings = readings
        for compiled in self._programs.values():
            compiled.program.set_readings(*(way.native() for way in readings))

    def screen_head(self, on: bool) -> None:
        """Whether a large head is screened (see native_screen), as it is unless told; for measuring."""
        if self._target is None:
            raise EngineStoppedError("the executor is closed")
        if self._target.screening.screen is not None:
            self._target.screening.screen.switch_on(on)

    def share_prefixes(self, on: bool) -> None:
        """Whether attention reads a prefix that spans share once, as it does unless told; for measuring."""
        self._sharing = on
        for compiled in self._programs.values():
            compiled.program.set_share_prefixes(on)

    @property
    def saved_chunks(self) -> int:
        """Reads of 256 positions that shared prefixes save each layer of the pass that began last."""
        return self.compiled(frozenset()).program.saved_chunks

    @property
    def made_ahead(self) -> int:
        """Bytes of the arena used last whose pages were made before they were wanted; 0 with one thread."""
        if self._target is None:
            raise EngineStoppedError("the executor is closed")
        return self._target.workspace.reserve.num_bytes

    def close(self) -> None:
        """Stop threads and free memory; further use raises EngineStoppedError."""
        self._target = self._sampler = None
        self.current = None
        self._programs.clear()
