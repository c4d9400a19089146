"""Law 2: a row never depends on its neighbours. Bitwise, on tiny models and on the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from pelton.exec.native import NativeExecutor, available_levels
from pelton.exec.protocol import Executor
from pelton.exec.reference import ReferenceExecutor
from pelton.models.load import LoadedModel
from pelton.plan import PlanBuilder, rebuild
from pelton.plan.op import F32, Run, Step, Value
from pelton.plan.ops import Linear
from pelton.types import I32, Span

from ..tiny import tiny_plan, tiny_weights
from .bench import Bench, check_row_independence, random_tokens

LEVELS = available_levels()


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("weight_format", ["Q4_1", "Q8_0", "IQ4_NL", "F32", "BF16"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_tiny_models_on_every_instruction_set(isa: str, weight_format: str, dtype: str) -> None:
    weights = tiny_weights(weight_format=weight_format)
    plan = tiny_plan(weights)

    def make(threads: int) -> Executor:
        return NativeExecutor(plan, weights, threads=threads, isa=isa)

    check_row_independence(make, length=90, batches=(2, 5, 32), dtype=dtype)


@pytest.mark.parametrize("isa", LEVELS)
def test_the_real_model(isa: str, real_model: LoadedModel) -> None:
    def make(threads: int) -> Executor:
        return NativeExecutor(real_model.plan, real_model.weights, threads=threads, isa=isa)

    long = isa == LEVELS[-1]
    check_row_independence(make, length=530 if long else 40, batches=(2, 9, 32) if long else (3,))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("threads", [2, 3])
def test_a_step_of_many_sequences(isa: str, threads: int) -> None:
    """Each thread has enough rows to keep, and products ask for what the next attention reads."""
    weights = tiny_weights(weight_format="Q4_1")
    bench = Bench(NativeExecutor(tiny_plan(weights), weights, threads=threads, isa=isa))
    texts = [random_tokens(2 + 7 * i % 66, i, bench.vocab) for i in range(80)]
    alone = [bench.alone(text)[-1] for text in texts]
    walks = [bench.walk(text) for text in texts]
    bench.run([walk.span(len(walk.tokens) - 1) for walk in walks])
    for walk in walks:
        walk.computed = len(walk.tokens) - 1
    together = bench.run([walk.span(1) for walk in walks])
    np.testing.assert_array_equal(np.concatenate(together), np.stack(alone))
    bench.executor.close()


def test_fork_and_roll_back(real_model: LoadedModel) -> None:
    bench = Bench(NativeExecutor(real_model.plan, real_model.weights, threads=2))
    tokens = random_tokens(75, 4, bench.vocab)
    whole = bench.alone(tokens)
    walk = bench.walk(tokens)
    (first,) = bench.run([walk.span(50)])
    walk.computed = 50
    twin = bench.walk(np.concatenate([tokens[:50], random_tokens(25, 5, bench.vocab)]))
    twin.table, twin.computed = walk.table.fork(), 50
    bench.run([twin.span(25)])  # writes into copies of the shared blocks
    (rest,) = bench.run([walk.span(25)])
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
    walk.table.shrink(41)
    walk.computed = 41
    (again,) = bench.run([walk.span(34)])
    np.testing.assert_array_equal(again, whole[41:])
    bench.executor.close()


@pytest.mark.parametrize("depth", [3, 300])
def test_every_path_of_a_24_node_tree_equals_plain_decoding(depth: int, real_model: LoadedModel) -> None:
    bench = Bench(NativeExecutor(real_model.plan, real_model.weights, threads=2))
    random = np.random.default_rng(8)
    context = random_tokens(depth, 6, bench.vocab)
    drafted = random_tokens(24, 7, bench.vocab)
    parents = np.array([-1] + [int(random.integers(max(-1, i - 6), i)) for i in range(1, 24)], np.int32)
    walk = bench.walk(context)
    bench.run([walk.span(depth)])
    walk.table.prepare(depth, depth + 24)
    span = Span(0, depth, drafted, walk.table.array, np.arange(24, dtype=np.int32), parents)
    (tree,) = bench.run([span])
    for node in range(24):
        path: list[int] = []
        at = node
        while at >= 0:
            path.insert(0, at)
            at = int(parents[at])
        plain = bench.alone(np.concatenate([context, drafted[path]]), chunk=64)
        np.testing.assert_array_equal(tree[path], plain[depth:], err_msg=f"path {path}")
    bench.executor.close()


@dataclass(frozen=True)
class NaiveLinear(Linear):
    """A linear that splits its sum over as many parts as the batch has rows: fast, and wrong here."""

    kind: ClassVar[str] = "linear"

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        weight = run.weight(self.weight)
        parts = np.array_split(np.arange(weight.shape[1]), min(8, 1 + len(rows)))
        total = np.zeros((len(rows), weight.shape[0]), np.float32)
        for part in parts:
            total += np.stack([weight[:, part] @ row[part] for row in inputs[0]])
        return (total,)


def test_a_naive_split_fails_this_test() -> None:
    weights = tiny_weights()

    def naive(builder: PlanBuilder, step: Step, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        op = NaiveLinear(step.op.weight) if isinstance(step.op, Linear) else step.op
        return builder.apply(op, *inputs)

    plan = rebuild(tiny_plan(weights), naive)
    with pytest.raises(AssertionError, match="chunks of 1"):
        check_row_independence(lambda threads: ReferenceExecutor(plan, weights), 40, (2,))
