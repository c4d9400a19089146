"""Rows whose logits nobody reads stop after the last layer's attention; the logits of the others stay."""

from __future__ import annotations

import numpy as np
import pytest

from pelton import LLM
from pelton.batch import make_batch
from pelton.exec.native import NativeExecutor
from pelton.exec.protocol import Executor
from pelton.exec.reference import ReferenceExecutor
from pelton.plan import Plan, PlanBuilder, load_of, verify
from pelton.plan.op import F32
from pelton.plan.ops import Attend, SelectRows
from pelton.plan.passes import narrow, tap_layer_outputs
from pelton.types import ALL_ROWS, OUTPUT_ROWS, Batch, Span

from ..tiny import HIDDEN, VOCAB, tiny_arena, tiny_plan, tiny_weights

WEIGHTS = tiny_weights()
PLAN = tiny_plan(WEIGHTS)
NARROW = narrow(PLAN)


def batch(outputs: list[list[int]], rows: int = 9) -> Batch:
    """A span of `rows` rows for each list of rows whose logits are wanted."""
    random = np.random.default_rng(3)
    return make_batch(
        [
            Span(
                number,
                0,
                random.integers(0, VOCAB, rows).astype(np.int32),
                np.array([number], np.int32),
                np.array(wanted, np.int32),
            )
            for number, wanted in enumerate(outputs)
        ]
    )


def logits(executor: Executor, outputs: list[list[int]]) -> F32:
    forward = executor.begin(batch(outputs), tiny_arena(executor.plan))
    forward.advance()
    return np.array(forward.logits())


def test_only_the_last_layers_keys_values_and_scores_are_of_all_rows() -> None:
    verify(NARROW)
    (last,) = [n for n, s in enumerate(NARROW.steps) if isinstance(s.op, Attend) and s.layer == 1]
    after = [shape.rows for s in NARROW.steps[last + 1 :] for shape in (NARROW.shapes[o] for o in s.outputs)]
    assert set(after) == {OUTPUT_ROWS}
    assert all(NARROW.shapes[o].rows == ALL_ROWS for s in NARROW.steps[: last + 1] for o in s.outputs)
    assert sum(isinstance(s.op, SelectRows) for s in NARROW.steps) == 2  # the residual and the attention


@pytest.mark.parametrize("outputs", [[[8]], [[0, 5, 8], [2]], [[], [8]], [list(range(9)), []], [[], []]])
def test_the_logits_are_the_same(outputs: list[list[int]]) -> None:
    whole, part = (logits(NativeExecutor(plan, WEIGHTS, 2), outputs) for plan in (PLAN, NARROW))
    assert whole.shape == (sum(map(len, outputs)), VOCAB)
    np.testing.assert_array_equal(part.view(np.int32), whole.view(np.int32))
    meant = logits(ReferenceExecutor(NARROW, WEIGHTS), outputs)
    np.testing.assert_allclose(meant, logits(ReferenceExecutor(PLAN, WEIGHTS), outputs), rtol=1e-4, atol=1e-5)


def test_narrowing_twice_changes_nothing() -> None:
    assert narrow(NARROW).steps == NARROW.steps


def test_a_tap_before_keeps_all_its_rows() -> None:
    plan = narrow(tap_layer_outputs(PLAN, [0, 1]))
    forward = ReferenceExecutor(plan, WEIGHTS).begin(batch([[8]]), tiny_arena(plan))
    forward.advance()
    assert forward.taps["layer.1"].shape == (9, HIDDEN)


def test_a_plan_whose_result_is_of_all_rows_stays() -> None:
    p = PlanBuilder(PLAN.weight_shapes)
    x = p.embed("token_embd")
    part = p.linear(p.select_rows(x, "picked"), "blk.0.attn_output")
    plan = p.finish(p.logits(p.scatter_rows(x, part, "picked"), "token_embd"))
    assert narrow(plan).steps == plan.steps


def test_two_row_sets_each_get_their_own_selection() -> None:
    p = PlanBuilder(PLAN.weight_shapes)
    x = p.rms_norm(p.embed("token_embd"), "output_norm", 1e-5)
    picked = p.linear(p.select_rows(x, "picked"), "blk.0.attn_output")
    p.tap(picked, "picked")
    plan = narrow(p.finish(p.logits(p.select_rows(x), "token_embd")))
    verify(plan)
    assert [s.op.row_set for s in plan.steps if isinstance(s.op, SelectRows)] == ["picked", OUTPUT_ROWS]


def cost(plan: Plan) -> float:
    sizes = {name: tensor.num_bytes for name, tensor in WEIGHTS.items()}
    return plan.cost(load_of({"all": 512, "outputs": 1}, 512, 512, 4, sizes)).multiply_adds


def test_loaded_models_do_less_work_for_a_prompt() -> None:
    assert cost(NARROW) < 0.75 * cost(PLAN)  # of two layers, most of one
    with LLM("synthetic:llama-135m?layers=2&context=64") as llm:
        plan = llm.engine.executor.plan
    assert narrow(plan).steps == plan.steps
    assert plan.shapes[plan.head[1]].rows == OUTPUT_ROWS
