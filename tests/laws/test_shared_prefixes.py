"""Reading a shared prefix once changes no bit: forked sequences against each computed by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.exec.native import NativeExecutor, available_levels
from pelton.models.load import LoadedModel

from ..tiny import tiny_plan, tiny_weights
from .bench import Bench, Walk, random_tokens

LEVELS = available_levels()


def compute(bench: Bench, walk: Walk, until: int) -> None:
    while walk.computed < until:
        span = walk.span(min(512, until - walk.computed))
        bench.run([span])
        walk.computed += len(span.tokens)


def fork(bench: Bench, walk: Walk, cut: int, more: int, seed: int) -> Walk:
    """A sequence that goes on with `more` tokens of its own after the first `cut` of another's."""
    tokens = np.concatenate([walk.tokens[:cut], random_tokens(more, seed, bench.vocab)])
    twin = bench.walk(tokens)
    twin.table = walk.table.fork()
    twin.table.shrink(cut)
    twin.computed = cut
    return twin


def check_steps(bench: Bench, walks: Sequence[Walk], counts: Sequence[int], steps: int) -> int:
    """Steps of `counts` rows of each walk, against the walks alone; the most chunk reads a step saved."""
    executor = bench.executor
    assert isinstance(executor, NativeExecutor)
    starts = [walk.computed for walk in walks]
    rows: list[list[np.typing.NDArray[np.float32]]] = [[] for _ in walks]
    saved = 0
    for _ in range(steps):
        spans = [walk.span(count) for walk, count in zip(walks, counts, strict=True)]
        for walk, own, logits, span in zip(walks, rows, bench.run(spans), spans, strict=True):
            own.append(logits)
            walk.computed += len(span.tokens)
        saved = max(saved, executor.saved_chunks)
    for place, (walk, own, start) in enumerate(zip(walks, rows, starts, strict=True)):
        expected = bench.alone(walk.tokens[: walk.computed], 512)[start:]
        np.testing.assert_array_equal(np.concatenate(own), expected, err_msg=f"sequence {place}")
    return saved


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize(("threads", "dtype"), [(1, "int8"), (2, "int8"), (2, "bfloat16"), (3, "float16")])
def test_forks_at_two_depths(isa: str, threads: int, dtype: str) -> None:
    """Nine sequences share two chunks, four of those a third; one shares nothing, one has a short context."""
    weights = tiny_weights(weight_format="Q4_1")
    bench = Bench(NativeExecutor(tiny_plan(weights), weights, threads, isa), dtype=dtype)
    base = bench.walk(random_tokens(520, 1, bench.vocab))
    compute(bench, base, 520)
    deep = fork(bench, base, 512, 300, 2)
    compute(bench, deep, 800)
    walks = [fork(bench, base, 514 + i, 8, 10 + i) for i in range(5)]
    walks += [fork(bench, deep, 790 + i, 8, 20 + i) for i in range(4)]
    other, short = bench.walk(random_tokens(700, 3, bench.vocab)), fork(bench, base, 100, 8, 5)
    compute(bench, other, 690)
    walks = [*walks[:4], other, *walks[4:], short]
    saved = check_steps(bench, walks, [1] * len(walks), 3)
    # 4 queries a row and head pair allow 12 rows together: nine readers of two chunks, four of one.
    assert saved == 2 * 8 + 3
    assert isinstance(bench.executor, NativeExecutor)
    bench.executor.share_prefixes(False)
    check_steps(bench, walks, [1] * len(walks), 1)
    assert bench.executor.saved_chunks == 0
    bench.executor.close()


@pytest.mark.parametrize("window", [0, 300])
@settings(max_examples=6)
@given(data=st.data())
def test_any_family_in_any_order(window: int, data: st.DataObject) -> None:
    weights = tiny_weights()
    bench = Bench(NativeExecutor(tiny_plan(weights, window=window), weights, threads=2))
    root = bench.walk(random_tokens(data.draw(st.integers(256, 900)), 1, bench.vocab))
    compute(bench, root, len(root.tokens))
    walks: list[Walk] = []
    for seed in range(data.draw(st.integers(2, 7))):
        parent = data.draw(st.sampled_from([root, *walks]))
        cut = data.draw(st.integers(200, parent.computed))
        walk = fork(bench, parent, cut, data.draw(st.integers(20, 300)), seed)
        compute(bench, walk, len(walk.tokens) - 15)
        walks.append(walk)
    chosen = data.draw(st.permutations(walks))
    check_steps(bench, chosen, [data.draw(st.sampled_from([1, 1, 1, 3])) for _ in chosen], 2)
    bench.executor.close()


def test_the_real_model_with_sharing_and_without(real_model: LoadedModel) -> None:
    executor = NativeExecutor(real_model.plan, real_model.weights, threads=2)
    bench = Bench(executor)
    base = bench.walk(random_tokens(530, 1, bench.vocab))
    compute(bench, base, 530)
    results, saved = [], []
    for sharing in (True, False):
        executor.share_prefixes(sharing)
        results.append(bench.run([fork(bench, base, 513 + i, 4, i).span(1) for i in range(10)]))
        saved.append(executor.saved_chunks)
    assert saved == [2 * 8, 0]  # 3 queries a row and head: five rows and five together
    np.testing.assert_array_equal(results[0], results[1])
    executor.close()
