"""The shared parts of block formats: bit fields and the rounding of scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.quant.affine import divided, f16_away, join_bits, split_bits


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_joining_undoes_splitting(bits: int, groups: int) -> None:
    packed = np.random.default_rng(0).integers(0, 256, (7, groups, 16), dtype=np.uint8)
    codes = split_bits(packed, bits)
    assert codes.shape == (7, groups * 16 * 8 // bits)
    assert int(codes.max()) == (1 << bits) - 1
    assert np.array_equal(join_bits(codes, bits, groups), packed.reshape(7, -1))


def test_the_first_codes_are_the_lowest_bits_of_all_bytes() -> None:
    packed = np.array([[[0x21, 0x43], [0x65, 0x87]]], np.uint8)
    assert split_bits(packed, 4).tolist() == [[1, 3, 2, 4, 5, 7, 6, 8]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(value=st.floats(-65504, 65504, width=32))
def test_scales_are_rounded_away_from_zero_by_less_than_one_step(value: float) -> None:
    rounded = f16_away(np.array([value], np.float32))
    half = rounded.astype(np.float16)
    assert np.array_equal(half.astype(np.float32), rounded)
    assert abs(float(rounded[0])) >= abs(value)
    assert np.signbit(rounded[0]) == np.signbit(np.float32(value))
    toward_zero = np.nextafter(half, np.float16(0)).astype(np.float64)
    assert value == 0 or abs(float(toward_zero[0])) < abs(value)


def test_dividing_by_a_scale_of_zero_gives_zero() -> None:
    values = np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)
    scales = np.array([[0.0], [2.0]], np.float32)
    assert divided(values, scales).tolist() == [[0, 0], [1.5, 2]]
