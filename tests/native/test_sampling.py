"""The native sampler chooses what the NumPy definition chooses: the same token, on every level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pelton._native import RowSampler, ThreadPool, isa_levels, softmax_weights
from pelton.config import SamplingParams
from pelton.decode import softmax
from pelton.decode.processor import RequestTokens
from pelton.decode.request import DecodeRequest
from pelton.decode.sampler import Sampler

Rows = NDArray[np.float32]
LEVELS = isa_levels()
POOL = ThreadPool(2)
SAMPLERS = {isa: Sampler(RowSampler(POOL, isa)) for isa in LEVELS}
DEFINITION = Sampler()
SIZES = (1, 2, 15, 16, 17, 255, 256, 257, 600, 3000)

PARAMETERS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1e-5, 0.3, 0.7, 1.0, 1.7, 100.0]),
    top_k=st.sampled_from([0, 1, 2, 3, 20, 100, 500, 2999, 10**6]),
    top_p=st.one_of(st.just(1.0), st.floats(1e-9, 1.0), st.sampled_from([0.5, 0.9, 0.999, 1 - 2**-53])),
    min_p=st.sampled_from([0.0, 0.0, 1e-9, 0.05, 0.7, 1.0]),
    typical_p=st.sampled_from([1.0, 1.0, 1.0, 0.9]),
    logprobs=st.sampled_from([None, None, 2]),
    seed=st.integers(0, 2**32),
)


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """Logits of many kinds: spread out, full of ties, flat, infinite, refused, with a NaN."""
    width, count = draw(st.sampled_from(SIZES)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = random.standard_normal((count, width)) * draw(st.sampled_from([0.0, 1e-6, 1.0, 3.0, 30.0, 1e38]))
    if draw(st.booleans()):
        values = np.round(values)
    values += draw(st.sampled_from([0.0, -50.0, 1e4]))
    result = np.clip(values, -3e38, 3e38).astype(np.float32)
    for special in draw(st.lists(st.sampled_from([np.inf, -np.inf, np.nan, 0.0, -0.0]), max_size=3)):
        result[random.random((count, width)) < draw(st.sampled_from([0.001, 0.5]))] = special
    if draw(st.integers(0, 9)) == 0:
        result[0] = -np.inf
    return result


def requests(params: list[SamplingParams], width: int) -> list[DecodeRequest]:
    tokens = RequestTokens(width)
    return [
        DecodeRequest.from_params(each, tokens, range(1 + place), each.seed or 0)
        for place, each in enumerate(params)
    ]


@settings(max_examples=150)
@given(rows(), st.data())
def test_every_token_is_the_definitions(logits: Rows, data: st.DataObject) -> None:
    params = data.draw(st.lists(PARAMETERS, min_size=len(logits), max_size=len(logits)))
    wanted = requests(params, logits.shape[1])
    with np.errstate(all="ignore"):
        expected = [str(outcome) for outcome in DEFINITION.sample(logits, wanted)]
        for isa, sampler in SAMPLERS.items():
            assert [str(outcome) for outcome in sampler.sample(logits, wanted)] == expected, isa


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("top_p", [0.3, 0.95, 0.9999])
def test_a_real_vocabulary(isa: str, scale: float, top_p: float) -> None:
    """Every way to find a probability mass: among the likeliest few, and by buckets."""
    random = np.random.default_rng(3)
    logits = (random.standard_normal((2, 49_152)) * scale).astype(np.float32)
    logits[1] = np.round(logits[1] * 4) / np.float32(4)
    for seed in range(4):
        params = [SamplingParams(top_p=top_p, seed=seed), SamplingParams(top_p=top_p, top_k=4000, seed=seed)]
        for chosen in (params, params[::-1]):
            wanted = requests(chosen, logits.shape[1])
            assert SAMPLERS[isa].sample(logits, wanted) == DEFINITION.sample(logits, wanted)


@pytest.mark.parametrize("isa", LEVELS)
def test_weights_are_the_definitions(isa: str) -> None:
    random = np.random.default_rng(4)
    ends = np.array([0.0, 1e-45, 3e38, np.inf])
    below = [np.linspace(0, 40, 50_001), 10 ** random.uniform(-9, 3, 50_000), ends]
    row = (2.5 - np.concatenate(below)).astype(np.float32)
    mine = softmax_weights(row, 2.5, isa)
    np.testing.assert_array_equal(mine, softmax.softmax_weights(row, 2.5))
    truth = np.exp((row - np.float32(2.5)).astype(np.float64)) * softmax.PEAK_WEIGHT
    assert np.max(np.abs(mine - truth) - 0.5 - 3e-7 * truth) <= 0


def test_draws_at_the_ends_of_the_distribution() -> None:
    row = np.zeros((1, 1000), dtype=np.float32)
    sampler = RowSampler(POOL, "")
    for top_p, last in ((1.0, 999), (0.5, 499), (1e-12, 0)):
        assert sampler.choose(row, [(0, 1.0, -math.inf, 0, top_p, 0.0)]) == [0]
        assert sampler.choose(row, [(0, 1.0, -math.inf, 0, top_p, 1 - 2**-53)]) == [last]


@pytest.mark.parametrize(
    "row",
    [
        (2, 1.0, 0.0, 0, 1.0, 0.0),
        (-1, 1.0, 0.0, 0, 1.0, 0.0),
        (0, -1.0, 0.0, 0, 1.0, 0.0),
        (0, math.nan, 0.0, 0, 1.0, 0.0),
        (0, 1.0, 0.5, 0, 1.0, 0.0),
        (0, 1.0, 0.0, -1, 1.0, 0.0),
        (0, 1.0, 0.0, 0, 0.0, 0.0),
        (0, 1.0, 0.0, 0, 1.0, 1.0),
        (0, 1.0, 0.0, 0, 1.0, math.nan),
    ],
)
def test_numbers_out_of_range_are_refused(row: tuple[int, float, float, int, float, float]) -> None:
    with pytest.raises(ValueError, match=r"row|temperature|min_p|random"):
        RowSampler(POOL, "").choose(np.zeros((2, 5), np.float32), [row])
