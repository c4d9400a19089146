"""The native executor agrees with the reference; cuts, row sets, taps, trees and threads change no bit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pelton.batch import make_batch
from pelton.exec.native import NativeExecutor, available_levels
from pelton.exec.reference import ReferenceExecutor
from pelton.kv import KV_FORMATS
from pelton.plan import Plan, PlanBuilder
from pelton.plan.ops import Activation, Attend
from pelton.plan.passes import tap_attention_mass, tap_layer_outputs

from ..laws.bench import Bench, random_tokens
from ..tiny import VOCAB, tiny_arena, tiny_plan, tiny_weights
from .passes import Case, logits, passes, span

F32 = NDArray[np.float32]
LEVELS = available_levels()


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (5, 0.0), (40, 3.0), (0, 1.5)])
def test_float_weights_agree_with_the_reference(isa: str, window: int, cap: float) -> None:
    weights = tiny_weights()
    plan = tiny_plan(weights, window=window, cap=cap)
    expected = logits(ReferenceExecutor(plan, weights), plan, *passes())
    for threads in (1, 2, 3):
        executor = NativeExecutor(plan, weights, threads, isa)
        found = logits(executor, plan, *passes())
        executor.close()
        # 13 products a row of at most 96 terms of order 1: sqrt-sized rounding, with room for two layers.
        np.testing.assert_allclose(
            found, expected, atol=64 * np.finfo(np.float32).eps * np.abs(expected).max()
        )


@pytest.mark.parametrize("weight_format", ["Q8_0", "Q4_0", "Q4_1", "Q5_1", "IQ4_NL"])
def test_block_weights_stay_near_the_reference(weight_format: str) -> None:
    weights = tiny_weights(weight_format=weight_format)
    plan = tiny_plan(weights)
    expected = logits(ReferenceExecutor(plan, weights), plan, *passes())
    executor = NativeExecutor(plan, weights, 2)
    found = logits(executor, plan, *passes())
    executor.close()
    # Rounding in steps of 1/113 or less of a block's largest (2.2 deviations): 0.6 % a product, 13 products,
    # times 2.
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.036 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (300, 2.0)])
@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_rounded_keys_and_values_agree_with_the_reference(
    dtype: str, isa: str, window: int, cap: float
) -> None:
    """Three chunks of attention, a prompt and then rows, one of them with an odd position before it."""
    weights = tiny_weights(weight_format="F32", layers=1)
    plan = tiny_plan(weights, layers=1, window=window, cap=cap)
    tokens = random_tokens(610, 4, VOCAB)
    batches = [make_batch([span(tokens[at:to], at)]) for at, to in pairwise((0, 577, 578, 603, 610))]
    reference, executor = ReferenceExecutor(plan, weights), NativeExecutor(plan, weights, 2, isa)
    expected = logits(reference, plan, *batches, dtype=dtype)
    found = logits(executor, plan, *batches, dtype=dtype)
    finer = logits(executor, plan, *batches, dtype="float32")
    executor.close()
    error, rounding = np.abs(found - expected), np.abs(finer - expected)
    # Where a sum in another order falls on the other side of a tie a number differs by a step.
    assert np.median(error) < 0.02 * np.median(rounding)
    assert error.max() < rounding.max()


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (300, 2.0)])
@pytest.mark.parametrize("dtype", KV_FORMATS)
def test_threads_and_splits_change_no_bit(dtype: str, isa: str, window: int, cap: float) -> None:
    """600 positions are three chunks of attention; single rows split them over threads, prompts do not."""
    weights = tiny_weights(weight_format="Q4_1", layers=1)
    plan = tiny_plan(weights, layers=1, window=window, cap=cap)
    tokens = random_tokens(600, 4, VOCAB)
    whole: F32 | None = None
    for threads in (1, 2, 3, 5):
        executor = NativeExecutor(plan, weights, threads, isa)
        arena = tiny_arena(plan, dtype=dtype)
        executor.begin(make_batch([span(tokens[:590])]), arena).advance()
        rows = []
        for position in range(590, 600):
            forward = executor.begin(make_batch([span(tokens[position : position + 1], position)]), arena)
            forward.advance()
            rows.append(forward.logits().copy())
        in_one = logits(executor, plan, make_batch([span(tokens)]), dtype=dtype)
        executor.close()
        whole = in_one if whole is None else whole
        np.testing.assert_array_equal(in_one, whole)
        np.testing.assert_array_equal(np.concatenate(rows), whole[590:])


@pytest.mark.parametrize("dtype", KV_FORMATS)
@pytest.mark.parametrize("neighbours", [1, 2, 7, 31])
def test_neighbours_change_no_bit(dtype: str, neighbours: int) -> None:
    weights = tiny_weights(weight_format="Q8_0")
    bench = Bench(NativeExecutor(tiny_plan(weights), weights, 2), dtype=dtype)
    tokens = random_tokens(70, 5, VOCAB)
    alone = bench.alone(tokens)
    np.testing.assert_array_equal(bench.among(tokens, neighbours, 1, seed=neighbours), alone)
    bench.executor.close()


@pytest.mark.parametrize("rows", [1, 9])
def test_a_cut_at_any_step_changes_no_bit(case: Case, rows: int) -> None:
    plan, executor, _ = case
    batch = make_batch([span(random_tokens(rows, 6, VOCAB))])
    whole = logits(executor, plan, batch)
    for cut in range(len(plan.steps) + 1):
        forward = executor.begin(batch, tiny_arena(plan))
        forward.advance(cut)
        forward.advance()
        np.testing.assert_allclose(forward.logits(), whole, rtol=0, atol=0, err_msg=f"cut at {cut}")
    forward = executor.begin(batch, tiny_arena(plan))
    for cut in range(len(plan.steps) + 1):
        forward.advance(cut)
    np.testing.assert_array_equal(forward.logits(), whole)


@pytest.mark.parametrize("rows", [1, 9])
def test_live_values_are_those_of_the_reference(case: Case, rows: int) -> None:
    plan, executor, reference = case
    batch = make_batch([span(random_tokens(rows, 7, VOCAB))])
    for cut in range(1, len(plan.steps), 3):
        found, expected = (e.begin(batch, tiny_arena(plan)) for e in (executor, reference))
        for forward in (found, expected):
            forward.advance(cut)
        for value in plan.live_at(cut):
            right = expected.read(value)
            np.testing.assert_allclose(found.read(value), right, atol=0.1 * np.abs(right).max())


def test_a_written_value_is_what_later_steps_read(case: Case) -> None:
    plan, executor, reference = case
    batch = make_batch([span(random_tokens(2, 8, VOCAB))])
    end = plan.after_layer(0)
    results = []
    for side in (executor, reference):
        forward = side.begin(batch, tiny_arena(plan))
        forward.advance(end)
        (value,) = plan.live_at(end)
        forward.write(
            value, np.linspace(-1, 1, 2 * plan.shapes[value].width, dtype=np.float32).reshape(2, -1)
        )
        forward.advance()
        results.append(forward.logits().copy())
    np.testing.assert_allclose(results[0], results[1], atol=0.05 * np.abs(results[1]).max())
    assert not np.array_equal(results[0], logits(executor, plan, batch))


def skipping_plan(plain: Plan) -> Plan:
    """The feed-forward half of layer 0 runs on the rows "some" only."""
    b = PlanBuilder(plain.weight_shapes)
    x = b.embed("token_embd")
    part = b.select_rows(x, "some")
    h = b.rms_norm(part, "blk.0.ffn_norm", 1e-5)
    gate = b.activation(b.linear(h, "blk.0.ffn_gate"), Activation.SILU)
    part = b.add(part, b.linear(b.mul(gate, b.linear(h, "blk.0.ffn_up")), "blk.0.ffn_down"))
    x = b.scatter_rows(x, part, "some")
    q, k, v = (b.linear(x, f"blk.0.{name}") for name in ("attn_q", "attn_k", "attn_v"))
    x = b.linear(b.attend(q, k, v, Attend(0, 4, 2, 16, 0.25)), "blk.0.attn_output")
    return b.finish(b.logits(b.select_rows(x), "token_embd"))


@pytest.mark.parametrize(("rows", "some"), [(8, [1, 4, 6]), (8, []), (2, [1]), (64, [0, 63])])
def test_a_row_set_runs_some_of_the_rows(rows: int, some: list[int]) -> None:
    weights = tiny_weights()
    plan = skipping_plan(tiny_plan(weights))
    batch = make_batch([span(random_tokens(rows, 9, VOCAB))], {"some": np.array(some, np.int32)})
    executor = NativeExecutor(plan, weights, 2)
    expected = logits(ReferenceExecutor(plan, weights), plan, batch)
    np.testing.assert_allclose(logits(executor, plan, batch), expected, atol=1e-5)
    executor.close()


def test_no_outputs_wanted_gives_no_logits(case: Case) -> None:
    plan, executor, _ = case
    forward = executor.begin(
        make_batch([span([1, 2, 3])._replace(outputs=np.empty(0, np.int32))]), tiny_arena(plan)
    )
    forward.advance()
    assert forward.logits().shape == (0, VOCAB)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 2e-2), ("int8", 2e-2)])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_taps_give_what_the_reference_gives(rows: int, dtype: str, tolerance: float) -> None:
    weights = tiny_weights()
    plain = tiny_plan(weights, window=30)
    plan = tap_attention_mass(tap_layer_outputs(plain, [0, 1]), [0, 1])
    tokens = random_tokens(45 + rows, 10, VOCAB)
    first = make_batch([span(tokens[:45]), span(tokens[:3], table=[40])])
    tree = [-1, *range(max(0, rows - 2)), -1][:rows]
    second = make_batch([span(tokens[45:], 45, parents=tree), span(tokens[3:4], 3, table=[40])])
    taps = []
    for executor in (NativeExecutor(plan, weights, 2), ReferenceExecutor(plan, weights)):
        arena = tiny_arena(plan, dtype=dtype)
        forwards = [executor.begin(first, arena)]
        forwards[0].advance()
        forwards.append(executor.begin(second, arena))
        forwards[1].advance()
        taps.append([dict(forward.taps) for forward in forwards])
        executor.close()
    for found, expected in zip(*taps, strict=True):
        assert set(found) == set(expected) == {"layer.0", "layer.1", "mass.0", "mass.1"}
        for name, right in expected.items():
            np.testing.assert_allclose(found[name], right, atol=tolerance, err_msg=name)
    assert taps[0][1]["mass.0"][0].sum() == pytest.approx(4 * rows, rel=1e-5)


def test_taps_change_no_bit(case: Case) -> None:
    plan, executor, _ = case
    tapped = tap_attention_mass(tap_layer_outputs(plan, [0]), [1])
    weights = executor.weights
    other = NativeExecutor(tapped, weights, 2)
    np.testing.assert_array_equal(logits(other, tapped, *passes()), logits(executor, plan, *passes()))
    other.close()


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize(
    ("context", "window", "cap"), [(0, 0, 0.0), (30, 0, 0.0), (61, 20, 4.0), (250, 0, 0.0)]
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_every_path_of_a_tree_equals_plain_decoding(
    isa: str, context: int, window: int, cap: float, dtype: str
) -> None:
    weights = tiny_weights(weight_format="Q4_1")
    plan = tiny_plan(weights, window=window, cap=cap)
    executor = NativeExecutor(plan, weights, 2, isa)
    random = np.random.default_rng(context)
    tokens = random_tokens(context + 24, 11, VOCAB)
    parents = np.array([-1, *(random.integers(-1, i) for i in range(1, 24))], np.int32)
    arena = tiny_arena(plan, dtype=dtype)
    if context:
        executor.begin(make_batch([span(tokens[:context])]), arena).advance()
    forward = executor.begin(make_batch([span(tokens[context:], context, parents=parents)]), arena)
    forward.advance()
    tree = forward.logits().copy()
    bench = Bench(executor, dtype=dtype)
    for leaf in set(range(24)) - {int(parent) for parent in parents}:
        path = [leaf]
        while parents[path[0]] >= 0:
            path.insert(0, int(parents[path[0]]))
        plain = bench.alone(np.concatenate([tokens[:context], tokens[context + np.array(path)]]), chunk=13)
        np.testing.assert_array_equal(tree[path], plain[context:], err_msg=f"path {path}")
    executor.close()
