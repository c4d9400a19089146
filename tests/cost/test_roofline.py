"""The least time of a pass: what a plan reads and computes, against a machine of round figures."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.cost.machine import Machine
from pelton.cost.roofline import Bound, StepCost, bound_of, pass_load, step_costs
from pelton.plan import Plan
from pelton.plan.passes import fuse

from ..tiny import FFN, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, VOCAB, tiny_plan, tiny_weights

LAYERS = 2
WEIGHTS = tiny_weights(LAYERS, weight_format="Q8_0")
PLAN = tiny_plan(WEIGHTS, LAYERS)
SIZES = {name: tensor.num_bytes for name, tensor in WEIGHTS.items()}
FORMATS = {name: tensor.format for name, tensor in WEIGHTS.items()}
MATRIX_ELEMENTS = LAYERS * HIDDEN * (2 * HEADS * HEAD_DIM + 2 * KV_HEADS * HEAD_DIM + 3 * FFN)


def machine(bandwidth: float = 1e10, int8: float = 1e12) -> Machine:
    return Machine("round figures", "avx512", 2, ((1 << 20, bandwidth),), int8, 5e11, 2.5e11, 1e-6)


def costs(
    rows: int, depth: int, sequences: int = 1, plan: Plan = PLAN, kv_bytes: float = 2.0
) -> list[StepCost]:
    load = pass_load(rows=rows, depth=depth, sequences=sequences, kv_bytes=kv_bytes, weight_bytes=SIZES)
    return step_costs(plan, load, FORMATS)


def test_a_decode_step_reads_every_matrix_once_and_the_keys_and_values() -> None:
    depth = 9
    matrices = sum(size for name, size in SIZES.items() if len(WEIGHTS[name].shape) == 2)
    kv = 2 * LAYERS * KV_HEADS * HEAD_DIM * 2 * (depth + 1)
    streamed = sum(cost.streamed for cost in costs(1, depth))
    norms = sum(size for name, size in SIZES.items() if len(WEIGHTS[name].shape) == 1)
    assert matrices + kv <= streamed <= matrices + kv + norms


def test_a_decode_step_multiplies_every_matrix_element_once() -> None:
    linear = [cost.multiply_adds for cost in costs(1, 0) if cost.step.op.kind == "linear"]
    assert sum(linear) == MATRIX_ELEMENTS + VOCAB * HIDDEN


def test_a_prompt_gives_logits_for_its_last_row_only() -> None:
    logits = [cost for cost in costs(10, 0) if PLAN.logits in cost.step.outputs]
    assert [cost.multiply_adds for cost in logits] == [VOCAB * HIDDEN]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 600), st.integers(0, 4000), st.integers(1, 40))
def test_more_rows_or_depth_never_take_less(rows: int, depth: int, sequences: int) -> None:
    base = bound_of(costs(rows, depth, sequences), machine())
    for more in ((rows + 1, depth, sequences), (rows, depth + 1, sequences), (rows, depth, sequences + 1)):
        other = bound_of(costs(*more), machine())
        assert other.streamed >= base.streamed
        assert other.multiply_adds > base.multiply_adds
        assert other.seconds >= base.seconds


def test_weights_are_read_once_for_all_sequences_of_a_step() -> None:
    alone, together = (bound_of(costs(1, 0, count), machine()) for count in (1, 32))
    kv = 2 * LAYERS * KV_HEADS * HEAD_DIM * 2
    assert together.streamed - alone.streamed == 31 * kv


def test_one_row_is_bound_by_memory_and_many_by_arithmetic() -> None:
    assert bound_of(costs(1, 0), machine()).limit == "memory"
    assert bound_of(costs(512, 0), machine()).limit == "compute"


def test_twice_the_bandwidth_halves_a_decode_step() -> None:
    slow, fast = (bound_of(costs(1, 0), machine(bandwidth)) for bandwidth in (1e9, 2e9))
    assert slow.seconds == pytest.approx(2 * fast.seconds)


@pytest.mark.parametrize(("kv_bytes", "attends"), [(4.0, "f32"), (2.0, "bf16"), (1.06, "int8")])
def test_block_formats_use_integers_and_attention_what_keys_are_kept_in(
    kv_bytes: float, attends: str
) -> None:
    kinds = {cost.step.op.kind: cost.arithmetic for cost in costs(1, 0, kv_bytes=kv_bytes)}
    assert (kinds["linear"], kinds["attend"]) == ("int8", attends)


def test_fused_steps_cost_what_their_parts_cost() -> None:
    plain, fused = (bound_of(costs(7, 3, plan=plan), machine()) for plan in (PLAN, fuse(PLAN)))
    assert fused.streamed == plain.streamed
    assert fused.multiply_adds == pytest.approx(plain.multiply_adds, rel=0.02)


def test_a_pass_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no pass"):
        pass_load(rows=0, depth=0, sequences=1, kv_bytes=2.0, weight_bytes={})


def test_an_equal_bound_counts_as_memory() -> None:
    assert Bound(1.0, 1.0, 2.0, 2.0).limit == "memory"
