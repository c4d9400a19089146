"""Which rows' logits are wanted changes no bit of those logits, nor of any key or value."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.batch import make_batch
from pelton.exec.native import NativeExecutor, available_levels
from pelton.exec.protocol import Executor
from pelton.exec.reference import ReferenceExecutor
from pelton.kv import KV_FORMATS, KVArena
from pelton.models.load import LoadedModel
from pelton.plan.passes import narrow
from pelton.types import Batch, Span

from ..tiny import VOCAB, tiny_arena, tiny_plan, tiny_weights
from .bench import F32, Bench, random_tokens

SHARED = 16
"""Blocks, two chunks of attention, with which all sequences but the first begin."""


def span(sequence: int, context: int, rows: int, wanted: list[int], parents: list[int] | None = None) -> Span:
    """Rows of a sequence that has 8 blocks of its own, after the shared ones unless it is the first."""
    own = SHARED + 8 * sequence + np.arange(8)
    table = own if sequence == 0 else np.concatenate([np.arange(SHARED), own])
    above = None if parents is None else np.array(parents, np.int32)
    tokens = random_tokens(rows, 100 * sequence + context, VOCAB)
    return Span(sequence, context, tokens, table.astype(np.int32), np.array(wanted, np.int32), above)


def shared_prefix() -> Span:
    """The positions that all sequences but the first share; nobody reads their logits."""
    return span(1, 0, 32 * SHARED, [])


def run(executor: Executor, batch: Batch, arena: KVArena) -> F32:
    forward = executor.begin(batch, arena)
    forward.advance()
    return np.array(forward.logits())


def some_passes() -> list[Batch]:
    """Prompts in chunks of which only the last one's last row is wanted, trees, rows that nobody asks for."""
    tree = [-1, 0, 0, 1, 1, 2, -1, 6]
    spans = [
        [shared_prefix()],
        [span(0, 0, 70, []), span(1, 512, 40, [])],
        [span(0, 70, 30, [29]), span(2, 512, 9, [0, 4, 8]), span(1, 552, 1, [])],
        [span(0, 100, 1, [0]), span(1, 553, 1, []), span(2, 521, 1, [0])],
        [span(0, 101, 1, []), span(1, 554, 1, [])],
        [span(0, 102, 1, [])],
        [span(0, 103, 8, [4, 5], tree), span(1, 555, 8, [0, 7], tree), span(2, 522, 8, [], tree)],
        [span(1, 555, 5, [4]), span(2, 522, 33, [32]), span(3, 512, 12, [11])],
    ]
    return [make_batch(pass_) for pass_ in spans]


def check(
    weight_format: str, batches: Iterator[Batch], window: int, threads: int, isa: str, dtype: str
) -> None:
    """Each pass through the plan as it is written and through the narrowed one, to the bit."""
    weights = tiny_weights(weight_format=weight_format)
    plan = tiny_plan(weights, window=window)
    executors = [NativeExecutor(p, weights, threads, isa) for p in (plan, narrow(plan))]
    arenas = [tiny_arena(plan, blocks=SHARED + 8 * 8, dtype=dtype) for _ in executors]
    for number, batch in enumerate(batches):
        whole, part = (run(executor, batch, arena) for executor, arena in zip(executors, arenas, strict=True))
        assert part.shape == (len(batch.outputs), VOCAB)
        np.testing.assert_array_equal(part.view(np.int32), whole.view(np.int32), err_msg=f"pass {number}")
        for stored in ("keys", "values"):
            whole, part = (getattr(arena, stored) for arena in arenas)
            np.testing.assert_array_equal(part, whole, err_msg=f"{stored} of pass {number}")
    for executor in executors:
        executor.close()


@pytest.mark.parametrize("isa", available_levels())
@pytest.mark.parametrize("dtype", KV_FORMATS)
@pytest.mark.parametrize("window", [0, 30])
def test_spans_of_every_kind(isa: str, dtype: str, window: int) -> None:
    for threads, weight_format in ((1, "Q4_1"), (2, "Q4_1"), (3, "BF16")):
        check(weight_format, iter(some_passes()), window, threads, isa, dtype)


def random_passes(random: np.random.Generator) -> Iterator[Batch]:
    """Passes over some of seven sequences, in any order, that want any of their rows."""
    yield make_batch([shared_prefix()])
    computed = [0] + [32 * SHARED] * 6
    for _ in range(6):
        spans = []
        for sequence in random.permutation(7)[: random.integers(1, 8)]:
            rows = int(random.choice([1, 1, 2, 7, 40]))
            tree = rows < 40 and random.random() < 0.3
            wanted = np.flatnonzero(random.random(rows) < random.choice([0, 0.3, 1])).tolist()
            parents = [int(random.integers(-1, row)) for row in range(rows)] if tree else None
            spans.append(span(int(sequence), computed[sequence], rows, wanted, parents))
            computed[sequence] += 0 if tree else rows
        yield make_batch(spans)


@pytest.mark.parametrize("window", [0, 300])
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), threads=st.integers(1, 3))
def test_any_rows_of_any_spans(window: int, seed: int, threads: int) -> None:
    check("Q8_0", random_passes(np.random.default_rng(seed)), window, threads, "", "int8")


@pytest.mark.parametrize("window", [0, 30])
def test_the_reference_agrees(window: int) -> None:
    weights = tiny_weights()
    plan = narrow(tiny_plan(weights, window=window))
    native, reference = NativeExecutor(plan, weights, 2), ReferenceExecutor(plan, weights)
    arenas = [tiny_arena(plan, blocks=SHARED + 8 * 8) for _ in range(2)]
    for batch in some_passes():
        found, meant = run(native, batch, arenas[0]), run(reference, batch, arenas[1])
        np.testing.assert_allclose(found, meant, atol=1e-5)
    native.close()


def test_a_cut_at_any_step_of_the_narrowed_plan() -> None:
    weights = tiny_weights(weight_format="Q4_1")
    plan = narrow(tiny_plan(weights))
    executor = NativeExecutor(plan, weights, 2)
    batch = make_batch([span(0, 0, 40, [3, 39]), span(1, 0, 5, [])])
    whole = run(executor, batch, tiny_arena(plan, blocks=SHARED + 16))
    for cut in range(len(plan.steps)):
        forward = executor.begin(batch, tiny_arena(plan, blocks=SHARED + 16))
        forward.advance(cut)
        forward.advance()
        np.testing.assert_array_equal(forward.logits(), whole, err_msg=f"cut at {cut}")
    executor.close()


def test_the_real_model(real_model: LoadedModel) -> None:
    """A prompt's last row alone, its chunks before without any, against all rows of the prompt."""
    bench = Bench(NativeExecutor(real_model.plan, real_model.weights, threads=2))
    tokens = random_tokens(300, 1, bench.vocab)
    whole = bench.alone(tokens)
    bench.executor.close()
    bench = Bench(NativeExecutor(narrow(real_model.plan), real_model.weights, threads=2))
    walk = bench.walk(tokens)
    for count in (130, 150, 19, 1):
        last = walk.computed + count == len(tokens)
        asked = walk.span(count)
        wanted = asked.outputs[-1:] if last else asked.outputs[:0]
        (logits,) = bench.run([Span(0, asked.context, asked.tokens, asked.table, wanted)])
        walk.computed += count
    np.testing.assert_array_equal(logits, whole[-1:])
    bench.executor.close()
