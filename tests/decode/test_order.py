from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pelton.decode.order import fewest_with_mass, top_order, top_set

Row = NDArray[np.float32]


def rows(max_size: int = 40) -> st.SearchStrategy[Row]:
    """Rows full of ties, signed zeros and infinities."""
    few = st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.0, -2.5, 3e38, -3e38, 1e-45, float("inf"), float("-inf")])
    values = st.one_of(few, st.floats(width=32, allow_nan=False))
    return st.lists(values, min_size=1, max_size=max_size).map(lambda row: np.array(row, dtype=np.float32))


def full_order(row: Row) -> list[int]:
    return sorted(range(len(row)), key=lambda i: (-float(row[i]), i))


@settings(deadline=None)
@given(rows(), st.integers(1, 45))
def test_top_matches_a_full_sort(row: Row, count: int) -> None:
    expected = full_order(row)[:count]
    assert top_order(row, count).tolist() == expected
    assert top_set(row, count).tolist() == sorted(expected)


def test_no_tokens_asked_for() -> None:
    assert top_order(np.zeros(3, dtype=np.float32), 0).tolist() == []


@pytest.mark.parametrize("kind", ["distinct", "ties", "equal"])
@pytest.mark.parametrize("share", [1e-6, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_fewest_with_mass_matches_a_full_sort_past_every_guess(kind: str, share: float) -> None:
    random = np.random.default_rng(5)
    row = random.standard_normal(5000).astype(np.float32)
    row = {"distinct": row, "ties": np.round(row * 4) / np.float32(4), "equal": row * np.float32(0)}[kind]
    weights = np.exp(row.astype(np.float64))
    mass = share * float(weights.sum())
    order = full_order(row)
    expected, reached = [], 0.0
    for token in order:
        if reached >= mass:
            break
        expected.append(token)
        reached += float(weights[token])
    assert fewest_with_mass(row, lambda ids: weights[ids], mass).tolist() == expected


def test_one_token_is_kept_though_no_mass_is_asked_for() -> None:
    row = np.array([1, 3, 2], dtype=np.float32)
    assert fewest_with_mass(row, lambda ids: np.ones(len(ids)), 0.0).tolist() == [1]
