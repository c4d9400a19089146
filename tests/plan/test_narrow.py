"""Of rows whose logits nobody reads the last layer makes keys and values alone; the others' logits stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pelton import LLM
from pelton.batch import make_batch
from pelton.errors import PlanError
from pelton.exec.native import NativeExecutor
from pelton.exec.protocol import Executor
from pelton.exec.reference import ReferenceExecutor
from pelton.plan import Plan, PlanBuilder, Step, Value, load_of, rebuild, verify
from pelton.plan.op import F32
from pelton.plan.ops import Attend, SelectRows
from pelton.plan.passes import narrow, tap_attention_mass, tap_layer_outputs
from pelton.types import ALL_ROWS, OUTPUT_ROWS, Batch, Span

from ..tiny import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, VOCAB, tiny_arena, tiny_plan, tiny_weights

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


def attention(plan: Plan, layer: int) -> int:
    """The number of the step in which a layer attends."""
    (number,) = [n for n, s in enumerate(plan.steps) if isinstance(s.op, Attend) and s.layer == layer]
    return number


def rows_of(plan: Plan, values: tuple[int, ...]) -> list[str]:
    return [plan.shapes[value].rows for value in values]


def test_only_the_last_layers_keys_and_values_are_of_all_rows() -> None:
    verify(NARROW)
    first, last = attention(NARROW, 0), attention(NARROW, 1)
    assert rows_of(NARROW, NARROW.steps[first].inputs) == [ALL_ROWS] * 3
    assert rows_of(NARROW, NARROW.steps[last].inputs) == [OUTPUT_ROWS, ALL_ROWS, ALL_ROWS]
    after = [rows for step in NARROW.steps[last:] for rows in rows_of(NARROW, step.outputs)]
    assert set(after) == {OUTPUT_ROWS}
    narrowed = [s.op for s in NARROW.steps[:last] if rows_of(NARROW, s.outputs) == [OUTPUT_ROWS]]
    assert [op.weights or op.kind for op in narrowed] == ["select_rows", ("blk.1.attn_q",), "rope"]
    assert sum(isinstance(s.op, SelectRows) for s in NARROW.steps) == 2  # the norm's output and the residual


def test_a_tapped_mass_is_that_of_all_queries() -> None:
    plan = narrow(tap_attention_mass(PLAN, [1]))
    step = plan.steps[attention(plan, 1)]
    assert rows_of(plan, (*step.inputs, *step.outputs)) == [ALL_ROWS] * 4
    forward = NativeExecutor(plan, WEIGHTS, 2).begin(batch([[8]]), tiny_arena(plan))
    forward.advance()
    assert forward.taps["mass.1"].sum() == pytest.approx(9 * HEADS, rel=1e-5)


def test_attention_needs_the_keys_and_values_of_all_rows() -> None:
    attend = Attend(0, HEADS, KV_HEADS, HEAD_DIM, 1.0)
    p = PlanBuilder(PLAN.weight_shapes)
    x = p.embed("token_embd")
    q, k = p.linear(p.select_rows(x), "blk.0.attn_q"), p.linear(x, "blk.0.attn_k")
    assert p.attend(q, k, k, attend).shape == q.shape
    part = p.linear(p.select_rows(x), "blk.0.attn_k")
    for keys, values in ((part, k), (k, part), (part, part)):
        with pytest.raises(PlanError, match="k and v must cover all rows"):
            p.attend(q, keys, values, attend)
    with pytest.raises(PlanError, match="mass is that of all rows"):
        p.attend(q, k, k, replace(attend, mass="mass.0"))


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


def test_queries_selected_after_a_tap_are_rounded_as_ever() -> None:
    """Products that lead into attention round their activations finely, also those a selection follows."""
    weights = tiny_weights(weight_format="Q4_1")

    def tap_queries(builder: PlanBuilder, step: Step, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        outputs = builder.apply(step.op, *inputs)
        if step.op.weights == ("blk.1.attn_q",):
            builder.tap(outputs[0], "queries")
        return outputs

    plan = narrow(rebuild(PLAN, tap_queries))
    (query,) = [s for s in plan.steps[: attention(plan, 1)] if isinstance(s.op, SelectRows)]
    (linear,) = [s for s in plan.steps if s.outputs == query.inputs]
    assert linear.op.weights == ("blk.1.attn_q",)
    whole, part = (logits(NativeExecutor(p, weights, 2), [[0, 8]]) for p in (PLAN, plan))
    np.testing.assert_array_equal(part, whole)


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
    rows, attended = {"all": 512, "outputs": 1}, {"all": 512 * 513 // 2, "outputs": 512}
    return plan.cost(load_of(rows, attended, 512, 4, sizes)).multiply_adds


def test_loaded_models_do_less_work_for_a_prompt() -> None:
    assert cost(NARROW) < 0.6 * cost(PLAN)  # of two layers, nearly one
    with LLM("synthetic:llama-135m?layers=2&context=64") as llm:
        plan = llm.engine.executor.plan
    assert narrow(plan).steps == plan.steps
    assert plan.shapes[plan.head[1]].rows == OUTPUT_ROWS
