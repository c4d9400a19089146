from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.decode.philox import philox4x32, uniform

# The "philox4x32 10" lines of kat_vectors in the Random123 distribution: counter, key, expected.
KNOWN_ANSWERS = [
    "00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1",
]
U64 = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize("line", KNOWN_ANSWERS)
def test_published_known_answers(line: str) -> None:
    c0, c1, c2, c3, k0, k1, *expected = (int(word, 16) for word in line.split())
    assert philox4x32((c0, c1, c2, c3), (k0, k1)) == tuple(expected)


def test_uniform_takes_its_bits_from_the_known_answer() -> None:
    # seed, position and stream spell counter and key of the third line, low words first
    seed, position, stream = 0x299F31D0_A4093822, 0x85A308D3_243F6A88, 0x03707344_13198A2E
    assert uniform(seed, position, stream) == ((0xD16CFE09 >> 5) * 2**26 + (0x94FDCCEB >> 6)) / 2**53


@settings(deadline=None)
@given(U64, U64, U64)
def test_uniform_is_a_53_bit_fraction(seed: int, position: int, stream: int) -> None:
    value = uniform(seed, position, stream)
    assert 0.0 <= value < 1.0
    assert (value * 2**53).is_integer()
    assert value == uniform(seed, position, stream)


@settings(deadline=None)
@given(U64, U64, U64, st.integers(0, 191))
def test_every_bit_of_every_argument_matters(seed: int, position: int, stream: int, bit: int) -> None:
    arguments = [seed, position, stream]
    arguments[bit // 64] ^= 1 << (bit % 64)
    assert uniform(*arguments) != uniform(seed, position, stream)


@pytest.mark.parametrize("axis", ["position", "stream", "seed"])
def test_numbers_along_each_argument_are_uniform(axis: str) -> None:
    arguments = {"seed": 1, "position": 2, "stream": 3}
    numbers = np.array([uniform(**{**arguments, axis: i}) for i in range(8000)])
    observed = np.histogram(numbers, bins=64, range=(0, 1))[0]
    chi_square = float(np.sum((observed - 125.0) ** 2 / 125.0))
    assert chi_square < 120  # 63 degrees of freedom: above this once in 2e5
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.05
