"""Plans as data: building, verifying, showing, rewriting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pelton.batch import make_batch
from pelton.errors import PlanError
from pelton.exec.reference import ReferenceExecutor
from pelton.plan import Plan, PlanBuilder, load_of, show, verify
from pelton.plan.op import F32
from pelton.plan.ops import OPS, Activation, GatedLinear, LinearAdd, LinearGroup, Mul
from pelton.plan.passes import decompose, fuse, tap_attention_mass, tap_layer_outputs
from pelton.types import Batch, Span

from ..tiny import FFN, HIDDEN, VOCAB, tiny_arena, tiny_plan, tiny_weights

WEIGHTS = tiny_weights()
PLAN = tiny_plan(WEIGHTS)


def batch(rows: int = 10) -> Batch:
    tokens = np.random.default_rng(3).integers(0, VOCAB, rows).astype(np.int32)
    outputs = np.array([rows - 1], np.int32)
    return make_batch([Span(0, 0, tokens, np.arange(2, dtype=np.int32), outputs)])


def logits(plan: Plan) -> F32:
    forward = ReferenceExecutor(plan, WEIGHTS).begin(batch(), tiny_arena(plan))
    forward.advance()
    return forward.logits()


def test_every_operation_is_a_row_with_its_own_name() -> None:
    assert all(row.kind == kind for kind, row in OPS.items())
    assert {step.op.kind for step in PLAN.steps} <= set(OPS)


def test_fused_plan_means_the_same_and_is_shorter() -> None:
    fused = fuse(PLAN)
    verify(fused)
    kinds = [step.op.kind for step in fused.steps]
    assert kinds.count("linear_group") == kinds.count("gated_linear") == 2
    assert kinds.count("linear_add") == 4
    np.testing.assert_array_equal(logits(fused), logits(PLAN))


def test_decomposing_undoes_fusing() -> None:
    parts = decompose(fuse(PLAN), lambda op: op not in (LinearGroup, LinearAdd, GatedLinear))
    assert sorted(s.op.kind for s in parts.steps) == sorted(s.op.kind for s in PLAN.steps)
    np.testing.assert_array_equal(logits(parts), logits(PLAN))


def test_segments_stop_at_any_step_and_resume() -> None:
    expected = logits(PLAN)
    executor = ReferenceExecutor(PLAN, WEIGHTS)
    for cut in range(len(PLAN.steps)):
        forward = executor.begin(batch(), tiny_arena(PLAN))
        forward.advance(cut)
        for value in PLAN.live_at(cut):
            forward.write(value, forward.read(value))
        forward.advance()
        np.testing.assert_array_equal(forward.logits(), expected)


def test_a_value_written_between_segments_is_what_the_rest_sees() -> None:
    executor = ReferenceExecutor(PLAN, WEIGHTS)
    forward = executor.begin(batch(), tiny_arena(PLAN))
    cut = PLAN.after_layer(1)
    forward.advance(cut)
    (hidden,) = PLAN.live_at(cut)
    forward.write(hidden, np.zeros_like(forward.read(hidden)))
    forward.advance()
    np.testing.assert_array_equal(forward.logits(), 0)


def test_taps_copy_hidden_states_and_attention_mass_and_change_nothing() -> None:
    plan = tap_attention_mass(tap_layer_outputs(PLAN, [0, 1]), [1])
    forward = ReferenceExecutor(plan, WEIGHTS).begin(batch(), tiny_arena(plan))
    forward.advance()
    assert forward.taps["layer.0"].shape == (10, HIDDEN)
    assert forward.taps["mass.1"].sum() == pytest.approx(10 * 4, rel=1e-5)  # 10 rows, 4 heads
    np.testing.assert_array_equal(forward.logits(), logits(PLAN))


def test_a_row_set_runs_three_of_eight_rows() -> None:
    p = PlanBuilder(PLAN.weight_shapes)
    x = p.embed("token_embd")
    part = p.linear(p.select_rows(x, "picked"), "blk.0.attn_output")
    plan = p.finish(p.logits(p.scatter_rows(x, part, "picked"), "token_embd"))
    picked = np.array([1, 4, 6], np.int32)
    spans = [Span(0, 0, np.arange(8, dtype=np.int32), np.zeros(1, np.int32), np.arange(8, dtype=np.int32))]
    executor = ReferenceExecutor(plan, WEIGHTS)
    forward = executor.begin(make_batch(spans, {"picked": picked}), tiny_arena(PLAN))
    forward.advance()
    table, weight = WEIGHTS["token_embd"].dequantize(), WEIGHTS["blk.0.attn_output"].dequantize()
    hidden = table[:8].copy()
    hidden[picked] = hidden[picked] @ weight.T
    np.testing.assert_allclose(forward.logits(), hidden @ table.T, rtol=1e-5, atol=1e-5)


def test_cost_counts_weights_once_and_multiply_adds_per_row() -> None:
    sizes = {name: tensor.num_bytes for name, tensor in WEIGHTS.items()}
    one = PLAN.cost(load_of({"all": 1, "outputs": 1}, {"all": 1}, 1, 4, sizes))
    many = PLAN.cost(load_of({"all": 8, "outputs": 1}, {"all": 36}, 8, 4, sizes))
    matrices = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * FFN) + VOCAB * HIDDEN
    assert matrices < one.multiply_adds < 1.1 * matrices
    assert many.multiply_adds > 6 * one.multiply_adds
    assert one.bytes < many.bytes < 2 * one.bytes


def test_builder_refuses_what_does_not_fit_and_names_the_step() -> None:
    p = PlanBuilder(PLAN.weight_shapes)
    x = p.embed("token_embd")
    with pytest.raises(PlanError, match=r"step 1 .*Linear\(weight='blk.0.ffn_down'.*\(64, 96\).*64 wide"):
        p.linear(x, "blk.0.ffn_down")
    with pytest.raises(PlanError, match="there is no weight 'absent'"):
        p.linear(x, "absent")
    with pytest.raises(PlanError, match="takes two like arrays"):
        p.mul(x, p.select_rows(x))


def test_verify_names_the_broken_step() -> None:
    steps = list(PLAN.steps)
    steps[1], steps[2] = steps[2], steps[1]
    with pytest.raises(PlanError, match=r"step 1: .*reads %1 before it is written"):
        verify(replace(PLAN, steps=tuple(steps)))
    wrong = replace(PLAN.steps[4], op=Mul())
    with pytest.raises(PlanError):
        verify(replace(PLAN, steps=(*PLAN.steps[:4], wrong, *PLAN.steps[5:])))
    attend = next(step for step in PLAN.steps if step.op.kind == "attend")
    twice = replace(attend, outputs=(len(PLAN.shapes),))
    with pytest.raises(PlanError, match="KV layer 0 is written twice"):
        verify(
            replace(PLAN, steps=(*PLAN.steps, twice), shapes=(*PLAN.shapes, PLAN.shapes[attend.outputs[0]]))
        )


def test_show_has_a_line_a_step() -> None:
    lines = list(show(PLAN))
    assert len([line for line in lines if line.startswith("   ")]) == len(PLAN.steps)
    assert any("linear(%1) weight=blk.0.attn_q" in line for line in lines)
    assert any(str(Activation.SILU) in line for line in lines)
