"""The native executor in use: what it is asked about itself, what it refuses, how it ends."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pelton.batch import make_batch
from pelton.errors import EngineStoppedError, ModelFileError, PlanError
from pelton.exec.native import NativeExecutor
from pelton.plan import PlanBuilder, Step, Value, rebuild
from pelton.plan.ops import Linear
from pelton.types import Batch

from ..tiny import VOCAB, tiny_arena, tiny_plan, tiny_weights
from .passes import Case, logits, passes, span

F32 = NDArray[np.float32]


def test_decoding_meets_five_times_a_layer() -> None:
    weights = tiny_weights(layers=6, weight_format="Q4_1")
    executor = NativeExecutor(tiny_plan(weights, layers=6), weights, 2)
    rows = executor.compiled(frozenset()).program.describe()
    inside = sum(name == "attend" for name, _, _ in rows)
    assert sum(few for _, _, few in rows) + inside <= 5 * 6 + 1
    executor.close()


def test_tied_weights_are_packed_once() -> None:
    weights = tiny_weights()
    both = {**weights, "output": weights["token_embd"]}

    def untie(builder: PlanBuilder, step: Step, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        tied = isinstance(step.op, Linear) and step.op.weight == "token_embd"
        return builder.apply(Linear("output") if tied else step.op, *inputs)

    plain = tiny_plan(weights)
    plan = rebuild(replace(plain, weight_shapes={name: t.shape for name, t in both.items()}), untie)
    executor = NativeExecutor(plan, both, 1)
    assert executor.packed_bytes == NativeExecutor(plain, weights, 1).packed_bytes
    batch = make_batch([span([1, 2])])
    np.testing.assert_array_equal(
        logits(executor, plan, batch), logits(NativeExecutor(plain, weights, 1), plain, batch)
    )


def test_tracing_times_every_instruction(case: Case) -> None:
    plan, executor, _ = case
    executor.trace(True)
    logits(executor, plan, *passes())
    rows = executor.traced()
    executor.trace(False)
    assert {row.name for row in rows} >= {
        "embed",
        "rms_norm",
        "linear",
        "attend",
        "gated_linear",
        "linear_add",
    }
    assert all(len(row.work) == 2 and min(row.work) >= 0 and min(row.wait) >= 0 for row in rows)
    assert all(sum(row.work) > 0 for row in rows if row.name == "linear")


def test_a_timeline_adds_up_to_the_totals(case: Case) -> None:
    """Events of a thread follow each other without a gap, and their sums are what `traced` says.

    Totals belong to the part, events to the thread that did it, as a thread may do a late one's parts too.
    """
    plan, executor, _ = case
    executor.trace(True)
    before = time.perf_counter_ns()
    logits(executor, plan, *passes())
    after = time.perf_counter_ns()
    totals, events = executor.traced(), executor.timeline()
    executor.trace(False)
    logits(executor, plan, *passes())
    assert executor.timeline() == events  # nothing is recorded any more
    for index, row in enumerate(totals):
        own = [event for event in events if event.index == index]
        assert len(own) == 2 * len(passes())
        assert sum(event.wait for event in own) == sum(row.wait)
        assert sum(event.end - event.start - event.wait for event in own) == sum(row.work)
        assert {(event.name, event.layer) for event in own} == {(row.name, row.layer)}
    for thread in range(2):
        mine = [event for event in events if event.thread == thread]
        assert all(before <= event.start <= event.end <= after for event in mine)
        assert all(event.end <= later.start for event, later in pairwise(mine))
        gaps = [1 for event, later in pairwise(mine) if event.end != later.start]
        assert len(gaps) < len(passes())  # each between two passes


def test_misuse_raises(case: Case) -> None:
    plan, executor, _ = case
    arena = tiny_arena(plan)
    old = executor.begin(make_batch([span([1])]), arena)
    with pytest.raises(PlanError, match="logits come last"):
        old.logits()
    with pytest.raises(PlanError, match="no such step"):
        old.advance(len(plan.steps) + 1)
    with pytest.raises(PlanError, match="not live"):
        old.read(plan.logits)
    new = executor.begin(make_batch([span([1])]), arena)
    with pytest.raises(PlanError, match="another forward pass"):
        old.advance()
    new.advance(plan.after_layer(0))
    (value,) = plan.live_at(plan.after_layer(0))
    with pytest.raises(ValueError, match="shape"):
        new.write(value, np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    ("field", "array", "message"),
    [
        ("tokens", [1, VOCAB, 2], "lies outside its table"),
        ("tokens", [1, -1, 2], "lies outside its table"),
        ("positions", [0, 1, 3], "slot as position"),
        ("slots", [0, 1, 40], "successive slots"),
        ("tables", [[64]], "names no block"),
        ("tables", [[-1]], "names no block"),
        ("context", [31], "cover its span"),
        ("context", [-1], "context of 0 or more"),
        ("span_start", [0, 2], "run from 0"),
        ("outputs", [0, 3], "ascending"),
        ("outputs", [1, 0], "ascending"),
        ("is_tree", [0, 0], "number of spans"),
    ],
)
def test_a_batch_with_an_index_outside_raises(case: Case, field: str, array: object, message: str) -> None:
    plan, executor, _ = case
    batch = make_batch([span([1, 2, 3], table=[4])])
    fields = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
    broken = Batch(**{**fields, field: np.array(array, np.int32)})
    with pytest.raises(ValueError, match=message):
        logits(executor, plan, broken)
    logits(executor, plan, batch)  # and it still works


def test_a_closed_executor_and_a_wrong_weight_raise() -> None:
    weights = tiny_weights()
    plan = tiny_plan(weights)
    executor = NativeExecutor(plan, weights, 1)
    executor.close()
    with pytest.raises(EngineStoppedError):
        executor.begin(make_batch([span([1])]), tiny_arena(plan))
    with pytest.raises(ModelFileError, match="token_embd"):
        NativeExecutor(plan, {**weights, "token_embd": weights["blk.0.attn_q"]}, 1)
