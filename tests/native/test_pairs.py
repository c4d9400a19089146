"""Products with weights in pairs of blocks are, on every level, bit for bit what NumPy's integers say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pelton import _native
from pelton.exec.native_weights import layout_of
from pelton.quant import FORMATS
from pelton.quant.format import F32

from .linear_cases import ISAS, POOL, format_weight, product, random_rows
from .pair_cases import PAIR, PairWeight, defined_product, pair_weight, random_weight, rounded

SHAPES = ((1, 32, 1), (15, 64, 2), (16, 96, 3), (33, 160, 9), (40, 576, 13), (17, 1216, 7))


def uneven_rows(rows: int, inputs: int) -> F32:
    """Blocks differ in size by factors of up to a thousand."""
    random = np.random.default_rng(rows + inputs)
    sizes = np.repeat(10.0 ** random.uniform(-2, 1, (rows, inputs // 32)), 32, axis=1)
    return np.asarray(random.standard_normal((rows, inputs)) * sizes, np.float32)


def assert_defined(weight: PairWeight, x: F32, isa: str, fine: bool) -> None:
    expected = defined_product(weight, rounded(x, weight.segment, fine), fine)
    found = product(weight.packed, x, isa, fine=fine)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    same = ~np.isnan(expected)
    np.testing.assert_array_equal(found[same].view(np.uint32), expected[same].view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("fine", [False, True], ids=["coarse", "fine"])
@pytest.mark.parametrize("segment", [1, 2, 9])
@pytest.mark.parametrize("has_minimum", [True, False], ids=["minimums", "centred"])
def test_products_are_what_numpy_says(has_minimum: bool, segment: int, fine: bool, isa: str) -> None:
    for outputs, inputs, rows in SHAPES:
        weight = random_weight(outputs, inputs, segment, has_minimum=has_minimum)
        assert_defined(weight, uneven_rows(rows, inputs), isa, fine)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("fine", [False, True], ids=["coarse", "fine"])
def test_no_total_leaves_32_bits(fine: bool, isa: str) -> None:
    """All codes at one end, all activations at theirs, minimums that add to that, and some far larger."""
    for segment in (1, 2, 9):
        for code, minimum in ((0, -1.0), (15, 1.0), (15, -7.5), (0, 900.0), (7, -6e4), (0, None), (15, None)):
            codes = np.full((18, 576), code, np.uint8)
            scales = np.full((18, 18), 0.99, np.float32).astype(np.float16).astype(np.float32)
            minimums = None if minimum is None else np.full((18, 18), minimum, np.float32)
            weight = pair_weight(codes, scales, minimums, segment)
            for sign in (1, -1):
                assert_defined(weight, np.full((7, 576), 3.99 * sign, np.float32), isa, fine)


@pytest.mark.parametrize("isa", ISAS)
def test_rows_that_are_not_ordinary(isa: str) -> None:
    weight = random_weight(20, 320, 2)
    x = uneven_rows(8, 320)
    x[1, 40], x[2, 300], x[3, 5] = np.nan, np.inf, 2.0**101
    x[4], x[5, 128:256], x[6] = 0.0, 0.0, 1e-30
    for fine in (False, True):
        assert_defined(weight, x, isa, fine)
        found = product(weight.packed, x, isa, fine=fine)
        assert np.isnan(found[1:4]).all()
        assert np.isfinite(found[[0, 5, 7]]).all()
        np.testing.assert_array_equal(found[[4, 6]], 0)


@pytest.mark.parametrize("isa", ISAS)
def test_weights_that_are_not_ordinary(isa: str) -> None:
    random = np.random.default_rng(3)
    codes = random.integers(0, 16, (9, 192), dtype=np.uint8)
    scales, minimums = np.full((2, 9, 6), 0.25, np.float32)
    scales[1, 3], scales[2, 0], minimums[3, 5] = np.nan, np.inf, -np.inf
    scales[4], minimums[5], scales[6], minimums[6] = 0.0, 0.0, 0.0, 0.0
    scales[7, 2], scales[8] = -0.5, 2.0**-24
    weight = pair_weight(codes, scales, minimums, 2)
    x = uneven_rows(7, 192)
    for fine in (False, True):
        assert_defined(weight, x, isa, fine)
        assert_defined(pair_weight(codes, scales, None, 2), x, isa, fine)
    found = product(weight.packed, x, isa)
    assert np.isnan(found[:, 1:4]).all()
    assert np.isfinite(found[:, [0, 4, 5, 6, 7, 8]]).all()
    np.testing.assert_array_equal(found[:, 6], 0)


def test_a_weight_in_pairs_is_nearly_the_plain_one() -> None:
    for name in ("Q4_0", "Q4_1"):
        for outputs, inputs in ((19, 96), (40, 1536)):
            plain = format_weight(FORMATS[name], outputs, inputs)
            rows = np.arange(outputs, dtype=np.int64)
            found = plain.packed.in_pairs(2, POOL).unpack_rows(rows)
            largest = np.abs(plain.values).max(axis=1, keepdims=True)
            assert np.all(np.abs(found - plain.values) <= largest / 2000)


def test_only_four_bits_in_groups_of_32_have_pairs() -> None:
    having = {name for name in FORMATS if layout_of(FORMATS[name]).has_pairs}
    assert having == {"Q4_0", "Q4_1"}
    plain = format_weight(FORMATS["Q4_K"], 16, 256).packed
    with pytest.raises(ValueError, match="pairs are made of 4 bits"):
        plain.in_pairs(2, POOL)
    for segment in (0, 10):
        with pytest.raises(ValueError, match="a segment has 1 to 9 pairs"):
            format_weight(FORMATS["Q4_1"], 16, 256).packed.in_pairs(segment, POOL)


@pytest.mark.parametrize("fine", [False, True], ids=["coarse", "fine"])
def test_activations_are_rounded_as_numpy_does_on_every_level(fine: bool) -> None:
    for segment in (1, 2, 3, 9):
        for inputs in (32, 96, 128, 416, 1216):
            x = uneven_rows(6, inputs)
            x[1, 3], x[2], x[3, :16] = np.nan, 0.0, 0.0
            x[4] *= np.float32(1e-28)
            expected = rounded(x, segment, fine)
            for isa in ISAS:
                pairs = _native.quantize_pairs(x, segment, isa, fine).view(PAIR)
                codes = pairs["codes"].reshape(6, -1)
                np.testing.assert_array_equal(codes[:, :inputs], expected.codes)
                np.testing.assert_array_equal(codes[:, inputs:], 0)
                units = np.repeat(pairs["unit"], 2, axis=1)[:, : inputs // 32]
                np.testing.assert_array_equal(units, expected.unit)
                same = _native.quantize_pairs(x, segment, ISAS[0], fine)
                np.testing.assert_array_equal(pairs.view(np.uint8), same)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("fine", [False, True], ids=["coarse", "fine"])
def test_every_way_of_reading_pairs_gives_the_same_bits(isa: str, fine: bool) -> None:
    ways = [
        _native.WeightReading(ahead, keep, panels, prepared)
        for ahead, keep, panels, prepared in ((0, False, 0, 0), (4096, True, 1, 1), (0, False, 4, 2))
    ]
    x = random_rows(100, 576, seed=6)
    for rows, has_minimum in itertools.product((1, 2, 5, 8, 25, 100), (True, False)):
        weight = random_weight(83, 576, 9, has_minimum=has_minimum).packed
        first, *others = (product(weight, x[:rows], isa, fine=fine, reading=way) for way in ways)
        for other in others:
            np.testing.assert_array_equal(other.view(np.uint32), first.view(np.uint32))
