"""Attention over keys and values of each format, beside its definition: the same numbers are rounded here and
there, so what is left is the order of float sums and a weight that falls on the other side of a tie."""

from __future__ import annotations

import numpy as np
import pytest

from pelton.batch import make_batch
from pelton.exec.native import NativeExecutor, available_levels
from pelton.exec.reference import ReferenceExecutor
from pelton.kv import KV_FORMATS, KVArena, KVLayout
from pelton.plan import KVShape
from pelton.types import Span

from .cases import Case, attend_case
from .test_ops import ROWS, make, run, tensor

SHAPES = [(3, 1, 16), (2, 2, 32), (6, 3, 48), (9, 3, 64), (8, 1, 80), (4, 4, 128), (14, 2, 256)]
CASES = [attend_case(*shape) for shape in SHAPES] + [attend_case(6, 2, 64, 9), attend_case(4, 2, 32, 0, 2.0)]


def arena_of(case: Case, dtype: str) -> KVArena:
    heads, dim = case.kv
    return KVArena(KVLayout(KVShape(1, heads, dim), dtype), 4)


def check_same_contents(native: KVArena, defined: KVArena) -> None:
    """Both executors stored the same bits in the same places, which a move finds too."""
    table = np.arange(2, dtype=np.int32)
    batch = make_batch([Span(0, 0, np.zeros(ROWS, np.int32), table, np.zeros(0, np.int32))])
    for arena in (native, defined):
        arena.move_slots(table, [17, 33, 34], 16)
    for found, meant in zip(
        *(arena.read(0, batch, 0, batch.slots) for arena in (native, defined)), strict=True
    ):
        np.testing.assert_array_equal(found, meant)


@pytest.mark.parametrize("isa", available_levels())
@pytest.mark.parametrize("dtype", [name for name, kind in KV_FORMATS.items() if kind.run > 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_rounded_keys_and_values_equal_the_definition(case: Case, dtype: str, isa: str) -> None:
    plan, tensors = make(case)
    rows = list(range(ROWS))
    defined, native = arena_of(case, dtype), arena_of(case, dtype)
    expected = run(ReferenceExecutor(plan, tensors), case, rows, defined)
    executor = NativeExecutor(plan, tensors, 2, isa)
    found = run(executor, case, rows, native)
    check_same_contents(native, defined)
    largest = float(np.abs(tensors["input.2"].dequantize()).max())
    # A step of a weight: 2^-9 of the largest in bfloat16, 2^-16 in 16 bits; scores and exponents 1e-5.
    step = 2.0**-8 if dtype == "bfloat16" else 2.0**-15
    assert np.abs(found - expected).max() <= largest * (step + 1e-4)
    assert np.median(np.abs(found - expected)) <= largest * (step + 1e-4) / 20
    arena = arena_of(case, dtype)
    for group in ([0], [1, 2], [3, 4, 5], [*range(6, 19)], [*range(19, ROWS)]):
        alone = run(executor, case, group, arena, at=group[0])
        np.testing.assert_array_equal(alone, found[group], err_msg=f"rows {group}")
    executor.close()


@pytest.mark.parametrize("isa", available_levels())
@pytest.mark.parametrize("dtype", KV_FORMATS)
@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_stays_in_its_row(dtype: str, number: float, isa: str) -> None:
    """A query that is no number makes its own outputs none. What it left in the block, in the same run of
    positions as others and after it, makes none of theirs so."""
    case = attend_case(3, 1, 16)
    plan, tensors = make(case)
    clean = NativeExecutor(plan, tensors, 1, isa)
    expected = run(clean, case, [0, 1, 2], arena_of(case, dtype))
    clean.close()
    for name in ("input.0", "input.1", "input.2"):
        table = tensors[name].dequantize().copy()
        table[3] = number
        tensors[name] = tensor(name, table, "F32")
    executor, arena = NativeExecutor(plan, tensors, 1, isa), arena_of(case, dtype)
    spoiled = run(executor, case, [3] * 7, arena)
    assert not np.isfinite(spoiled).all()
    np.testing.assert_array_equal(run(executor, case, [0, 1, 2], arena), expected)
    together = run(executor, case, [0, 1, 2, 3], arena)
    np.testing.assert_array_equal(together[:3], expected)
    executor.close()
