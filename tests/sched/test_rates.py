"""What steps cost: a line through the recent ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.sched.rates import StepRates


@given(fixed=st.floats(1e-4, 0.1), row=st.floats(1e-6, 0.01), seed=st.integers(0, 100))
def test_the_line_is_found(fixed: float, row: float, seed: int) -> None:
    rates, random = StepRates(), np.random.default_rng(seed)
    for rows in random.integers(1, 512, 400).tolist():
        rates.observe(rows, fixed + row * rows)
    assert rates.seconds(100) == pytest.approx(fixed + row * 100, rel=0.05)


def test_steps_of_one_size_keep_the_slope() -> None:
    rates = StepRates()
    for _ in range(500):
        rates.observe(8, 0.01)
    assert rates.seconds(8) == pytest.approx(0.01, rel=0.01)
    assert rates.row > 0
    assert rates.fixed > 0


def test_copies_are_timed() -> None:
    rates = StepRates()
    for _ in range(500):
        rates.observe_copy(1 << 20, 0.01)
    assert rates.copy_bytes_per_second == pytest.approx((1 << 20) / 0.01, rel=0.01)
