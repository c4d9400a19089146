"""Every operation, native against its NumPy definition; each row also by itself, bit for bit."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from pelton.batch import make_batch
from pelton.exec.native import NativeExecutor, available_levels
from pelton.exec.protocol import Executor
from pelton.exec.reference import ReferenceExecutor
from pelton.kv import KVArena, KVLayout
from pelton.plan import KVShape, Plan, PlanBuilder
from pelton.plan.ops import OPS, Attend, Experts
from pelton.quant import Tensor, format_named
from pelton.types import BLOCK_SIZE, Span

from .cases import CASES, Case

F32 = NDArray[np.float32]
ROWS = 35


def tensor(name: str, values: NDArray[np.floating], format_name: str) -> Tensor:
    form = format_named(format_name)
    data = form.encode(values.astype(np.float32).reshape(-1, form.block)).reshape(-1)
    return Tensor(name, form, values.shape, data)


def make(case: Case) -> tuple[Plan, dict[str, Tensor]]:
    """The plan and its weights; input i is the table "input.<i>", row by row."""
    random = np.random.default_rng(zlib.crc32(case.name.encode()))
    tensors = {}
    for name, (shape, form) in case.weights.items():
        tensors[name] = tensor(name, random.standard_normal(shape) / np.sqrt(shape[-1]), form)
    for index, width in enumerate(case.inputs):
        values = random.standard_normal((ROWS, width)) * random.choice([0.1, 1.0, 4.0], (ROWS, 1))
        if isinstance(case.op, Experts) and index == 1:  # as a router leaves them: few experts each
            values = np.where(np.argsort(np.argsort(-values, axis=1), axis=1) < 2, np.abs(values) + 0.1, 0.0)
        tensors[f"input.{index}"] = tensor(f"input.{index}", values, "F32")
    builder = PlanBuilder({name: t.shape for name, t in tensors.items()})
    return builder.finish(case.build(builder)), tensors


def run(executor: Executor, case: Case, rows: list[int], arena: KVArena | None = None, at: int = 0) -> F32:
    heads, dim = case.kv
    arena = arena or KVArena(KVLayout(KVShape(1, heads, dim), "float16"), 4)
    context = case.context + at
    blocks = (context + len(rows) + BLOCK_SIZE - 1) // BLOCK_SIZE
    table = np.arange(blocks, dtype=np.int32) % 4
    outputs = np.arange(len(rows), dtype=np.int32)
    forward = executor.begin(make_batch([Span(0, context, np.array(rows, np.int32), table, outputs)]), arena)
    forward.advance()
    logits: F32 = forward.logits().copy()
    return logits


def dequantized(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.float64]]:
    return {name: t.dequantize().astype(np.float64) for name, t in tensors.items()}


@pytest.mark.parametrize("isa", available_levels())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_native_equals_the_definition(case: Case, isa: str) -> None:
    plan, tensors = make(case)
    exact = dequantized(tensors)
    inputs = [exact[f"input.{i}"] for i in range(len(case.inputs))]
    rows = list(range(ROWS))
    expected = run(ReferenceExecutor(plan, tensors), case, rows)
    executor = NativeExecutor(plan, tensors, 2, isa)
    found = run(executor, case, rows)
    allowed = np.broadcast_to(case.bound(inputs, exact), found.shape)
    excess = np.abs(found.astype(np.float64) - expected) - allowed
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    assert excess.max() <= 0.0, f"{excess.max()} beyond {allowed.reshape(-1)[excess.argmax()]}"
    _check_rows_alone(case, executor, found)
    executor.close()


def _check_rows_alone(case: Case, executor: Executor, whole: F32) -> None:
    heads, dim = case.kv
    arena = KVArena(KVLayout(KVShape(1, heads, dim), "float16"), 4)
    positional = case.context > 0 or isinstance(case.op, Attend)
    for group in ([0], [1, 2], [3, 4, 5], [*range(6, 19)], [*range(19, ROWS)]):
        found = run(executor, case, group, arena, at=group[0] if positional else 0)
        np.testing.assert_array_equal(found, whole[group], err_msg=f"rows {group}")


def test_every_operation_has_a_case() -> None:
    """Those without one copy rows, or copy out: tests/exec/test_native.py runs them."""
    covered = {type(case.op) for case in CASES}
    assert {kind for kind, op in OPS.items() if op not in covered} == {"select_rows", "scatter_rows", "tap"}
