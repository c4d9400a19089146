from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pelton.decode.logprobs import Logprob, prompt_logprobs, token_logprobs
from pelton.errors import RequestError

Row = NDArray[np.float32]
VALUES = st.one_of(st.sampled_from([0.0, 1.0, -3.0, float("-inf")]), st.floats(-20, 20, width=32))
ROWS = (
    st.lists(VALUES, min_size=1, max_size=30)
    .map(lambda row: np.array(row, dtype=np.float32))
    .filter(lambda row: bool(np.any(row > -np.inf)))
)


@settings(deadline=None)
@given(ROWS, st.integers(0, 29), st.integers(0, 20))
def test_logprobs_match_their_definition(row: Row, token: int, num_top: int) -> None:
    token %= len(row)
    entries = token_logprobs(row, token, num_top)
    order = sorted(range(len(row)), key=lambda i: (-float(row[i]), i))
    top = order[:num_top]
    assert list(entries) == [token, *(each for each in top if each != token)]
    total = math.log(math.fsum(math.exp(value) for value in row.tolist()))
    for each, entry in entries.items():
        assert entry.rank == order.index(each) + 1
        assert entry.logprob == pytest.approx(float(row[each]) - total, abs=1e-9)
        assert entry.decoded_token is None


def test_infinite_logits_share_the_probability() -> None:
    row = np.array([1, np.inf, 2, np.inf], dtype=np.float32)
    half = math.log(0.5)
    assert token_logprobs(row, 2, 2) == {
        2: Logprob(-math.inf, 3),
        1: Logprob(half, 1),
        3: Logprob(half, 2),
    }


@pytest.mark.parametrize("row", [[0.0, math.nan], [-math.inf, -math.inf]])
def test_rows_that_are_not_finite_are_refused(row: list[float]) -> None:
    with pytest.raises(RequestError, match="not finite"):
        token_logprobs(np.array(row, dtype=np.float32), 0, 1)


def test_prompt_logprobs_are_the_same_in_any_chunks() -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal((9, 50)).astype(np.float32)
    targets = random.integers(0, 50, 9).tolist()
    whole = prompt_logprobs(logits, targets, 4)
    chunked = prompt_logprobs(logits[:5], targets[:5], 4) + prompt_logprobs(logits[5:], targets[5:], 4)
    assert whole == chunked
    assert [next(iter(entries)) for entries in whole] == targets
