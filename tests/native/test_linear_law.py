"""Law 2 of products: a row's bits do not depend on its neighbours, nor on how the weight is read."""

from __future__ import annotations

import numpy as np
import pytest

from pelton import _native
from pelton._native import WeightReading
from pelton.quant import FORMATS

from .linear_cases import (
    ISAS,
    LAYOUTS,
    POOL,
    Weight,
    block_weight,
    float_weight,
    format_weight,
    law_weights,
    multiplied,
    product,
    random_rows,
)


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_is_the_same_alone_in_any_batch_and_with_any_threads(isa: str) -> None:
    pools = [_native.ThreadPool(threads) for threads in (1, 2, 3, 4)]
    for weight in law_weights():
        x = random_rows(32, weight.packed.inputs, seed=3)
        alone = np.concatenate([product(weight.packed, x[t : t + 1], isa) for t in range(32)])
        for rows in (2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 20, 25, 32):
            for pool in pools:
                together = product(weight.packed, x[:rows], isa, pool)
                np.testing.assert_array_equal(together.view(np.uint32), alone[:rows].view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("fine", [False, True], ids=["coarse", "fine"])
def test_every_way_of_reading_weights_gives_the_same_bits(isa: str, fine: bool) -> None:
    """Few rows read one or four panels at once; many share unpacked codes or multiples of scales, in two
    slices and two chunks."""
    plain = WeightReading(0, keep=False, panels=0, prepared=0)
    others = [
        WeightReading(4096, keep=True, panels=1, prepared=0),
        WeightReading(0, keep=False, panels=4, prepared=2),
        WeightReading(0, keep=True, panels=4, prepared=1),
    ]
    weights = [block_weight(layout, 83, 256) for layout in LAYOUTS]
    weights += [format_weight(FORMATS[name], 40, 1024) for name in ("Q4_1", "Q4_K", "Q6_K", "IQ4_XS")]
    for weight in weights:
        x = random_rows(100, weight.packed.inputs, seed=6)
        for rows in (1, 2, 8, 25, 43, 50, 100):
            expected = product(weight.packed, x[:rows], isa, fine=fine, reading=plain)
            for other in others:
                found = product(weight.packed, x[:rows], isa, fine=fine, reading=other)
                np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("fine", [False, True], ids=["coarse", "fine"])
def test_multiples_of_scales_are_for_any_scales_and_rows(isa: str, fine: bool) -> None:
    """Scales and rows that exponents cannot be added for: zeros, NaN, next to nothing, very large ones."""
    for layout in LAYOUTS:
        for strange in (False, True):
            weight = block_weight(layout, 96, 288, strange)
            x = random_rows(50, 288, seed=7)
            x[3, 40], x[30, 7], x[31, 200], x[32, 100] = np.nan, np.inf, 3e35, 1e30
            x[33:36], x[36, 32:96], x[37] = 0.0, 0.0, 1e-33
            plain, ready = (
                product(weight.packed, x, isa, fine=fine, reading=WeightReading(0, False, 0, prepared))
                for prepared in (0, 2)
            )
            broken = np.isnan(plain)
            assert np.all(broken[[3, 30, 31]])
            np.testing.assert_array_equal(np.isnan(ready), broken)
            np.testing.assert_array_equal(ready[~broken].view(np.uint32), plain[~broken].view(np.uint32))


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa not in ("generic", "avx2")])
def test_levels_that_fuse_multiply_and_add_agree_to_the_bit(isa: str) -> None:
    """Integer sums are exact and floats are added in one order; bfloat16 dot products have their own."""
    blocks = [block_weight(layout, 83, 256) for layout in LAYOUTS]
    for weight in (*blocks, *law_weights()[:-2]):
        x = random_rows(13, weight.packed.inputs, seed=4)
        for fine in (False, True):
            expected = product(weight.packed, x, "avx2", fine=fine)
            np.testing.assert_array_equal(product(weight.packed, x, isa, fine=fine), expected)
    for dense in law_weights()[-2:]:
        x = multiplied(random_rows(13, dense.packed.inputs, seed=4), "BF16", "avx512_bf16")
        found, expected = product(dense.packed, x, isa), product(dense.packed, x, "avx2")
        same = np.array_equal(found.view(np.uint32), expected.view(np.uint32))
        assert same == (isa != "avx512_bf16")  # pairs are added odd input first


def input_slice(weight: Weight, start: int, end: int) -> _native.PackedWeight:
    part = np.ascontiguousarray(weight.values[:, start:end])
    packed = _native.PackedWeight(len(part), end - start, _native.WeightLayout.floats("F32"))
    packed.pack_floats(0, part.view(np.uint8), POOL)
    return packed


@pytest.mark.parametrize("isa", ISAS)
def test_the_law_test_catches_a_sum_split_by_batch_size(isa: str) -> None:
    """What a kernel does that halves the inputs for large batches: the same sum, other bits."""
    weight = float_weight("F32", 83, 256)
    halves = [input_slice(weight, 0, 128), input_slice(weight, 128, 256)]
    x = random_rows(16, 256, seed=3)
    alone = product(weight.packed, x, isa)
    split = product(halves[0], np.ascontiguousarray(x[:, :128]), isa) + product(
        halves[1], np.ascontiguousarray(x[:, 128:]), isa
    )
    np.testing.assert_allclose(split, alone, atol=1e-3)
    assert np.any(split.view(np.uint32) != alone.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_row_stays_alone(bad: float, isa: str) -> None:
    for weight in law_weights():
        x = random_rows(14, weight.packed.inputs)
        healthy = product(weight.packed, x, isa)
        x[5, 17] = bad
        broken = product(weight.packed, x, isa)
        assert not np.any(np.isfinite(broken[5]))
        others = np.arange(14) != 5
        np.testing.assert_array_equal(broken[others], healthy[others])
