from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pelton.config import SamplingParams
from pelton.decode.processor import RequestTokens
from pelton.decode.request import DecodeRequest
from pelton.decode.sampler import Decoded, Sampler, draw
from pelton.errors import RequestError

Rows = NDArray[np.float32]
V = 600
TOKENS = RequestTokens(V, (2,), ((4,), (5, 6)))
SAMPLER = Sampler()

SETTINGS = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=0, logprobs=3),
    SamplingParams(temperature=0, repetition_penalty=1.3, min_tokens=4),
    SamplingParams(seed=1),
    SamplingParams(seed=2, temperature=0.7, top_k=20, top_p=0.9),
    SamplingParams(seed=3, top_p=0.8, presence_penalty=0.5, logprobs=0),
    SamplingParams(seed=4, typical_p=0.6, logit_bias={3: 4.0}, logprobs=20),
    SamplingParams(seed=5, min_p=0.1, frequency_penalty=1.0, banned_token_ids=[1, 2]),
]


def request(params: SamplingParams, prompt: list[int], stream: int = 0) -> DecodeRequest:
    return DecodeRequest.from_params(params, TOKENS, prompt, params.seed or 0, stream)


def logits(seed: int, count: int, scale: float = 3.0) -> Rows:
    return (np.random.default_rng(seed).standard_normal((count, V)) * scale).astype(np.float32)


def token(outcome: Decoded | RequestError) -> int:
    assert isinstance(outcome, Decoded)
    return outcome.token


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(SETTINGS), min_size=2, max_size=32))
def test_a_row_never_depends_on_its_neighbours(seed: int, params: list[SamplingParams]) -> None:
    rows = logits(seed, len(params))
    before = rows.copy()
    requests = [request(each, [i, i + 1, 7]) for i, each in enumerate(params)]
    together = SAMPLER.sample(rows, requests)
    alone = [SAMPLER.sample(rows[i : i + 1].copy(), [requests[i]])[0] for i in range(len(params))]
    assert together == alone  # logprobs too, bit for bit
    assert np.array_equal(rows, before)
    assert SAMPLER.sample(rows[::-1], requests[::-1]) == alone[::-1]


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_greedy_takes_the_lowest_id_among_equals(batch: int) -> None:
    rows = np.zeros((batch, V), dtype=np.float32)
    rows[:, [5, 9, 40]] = 1.0
    outcomes = SAMPLER.sample(rows, [request(SETTINGS[0], [1])] * batch)
    assert [token(outcome) for outcome in outcomes] == [5] * batch


@pytest.mark.parametrize("params", SETTINGS)
@pytest.mark.parametrize("neighbours", [0, 3])
def test_a_row_that_is_not_finite_fails_alone(params: SamplingParams, neighbours: int) -> None:
    rows = logits(1, 3 + neighbours)
    rows[0, 17] = np.nan
    rows[1, :] = -np.inf
    rows[2, :] = np.nan
    outcomes = SAMPLER.sample(rows, [request(params, [1])] * len(rows))
    for outcome in outcomes[:3]:
        assert isinstance(outcome, RequestError)
        assert "not finite" in str(outcome)
    assert all(isinstance(outcome, Decoded) for outcome in outcomes[3:])


@pytest.mark.parametrize("params", SETTINGS)
def test_infinite_logits_are_certain_or_impossible(params: SamplingParams) -> None:
    rows = logits(2, 1)
    rows[0, 100:] = -np.inf
    rows[0, [50, 60]] = np.inf
    assert token(SAMPLER.sample(rows, [request(params, [1])])[0]) in {50, 60}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_masks_that_leave_nothing_are_an_error_of_that_row(temperature: float) -> None:
    params = SamplingParams(allowed_token_ids=[2], min_tokens=3, temperature=temperature)
    outcomes = SAMPLER.sample(logits(3, 2), [request(params, [1]), request(SETTINGS[0], [1])])
    assert isinstance(outcomes[0], RequestError)
    assert "no token" in str(outcomes[0])
    assert isinstance(outcomes[1], Decoded)


def chi_square(observed: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    assert observed[expected == 0].sum() == 0
    likely = expected >= 5
    pooled_expected = np.append(expected[likely], expected[~likely].sum())
    pooled_observed = np.append(observed[likely], observed[~likely].sum())
    usable = pooled_expected > 0
    return float(np.sum((pooled_observed - pooled_expected)[usable] ** 2 / pooled_expected[usable]))


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (SamplingParams(), 600),
        (SamplingParams(temperature=0.5), 600),
        (SamplingParams(top_k=10), 10),
        (SamplingParams(top_k=50, temperature=2.0), 50),
    ],
)
@pytest.mark.parametrize("axis", ["position", "stream"])
def test_draws_follow_the_distribution(params: SamplingParams, kept: int, axis: str) -> None:
    """1,500 draws with fixed seeds; a chi-square of 150 is beyond 1e-6 for up to 80 degrees."""
    row = logits(4, 1)
    base = request(params, [1], stream=0)
    counts = np.zeros(V, dtype=np.int64)
    for i in range(1500):
        each = base if axis == "position" else base.fork(i)
        counts[token(SAMPLER.sample(row, [each])[0])] += 1
        if axis == "position":
            base.history.push(0)
    scaled = row[0].astype(np.float64) / params.temperature
    weights = np.exp(scaled - scaled.max())
    weights[np.argsort(-row[0], kind="stable")[kept:]] = 0
    assert chi_square(counts, 1500 * weights / weights.sum()) < 150


def test_a_draw_depends_on_seed_position_and_stream_alone() -> None:
    row = np.zeros((1, V), dtype=np.float32)
    params = SamplingParams()

    def drawn(seed: int, prompt: int, stream: int) -> int:
        tokens = RequestTokens(V)
        each = DecodeRequest.from_params(params, tokens, range(prompt), seed, stream)
        return token(SAMPLER.sample(row, [each])[0])

    assert drawn(1, 5, 0) == drawn(1, 5, 0)
    assert len({drawn(seed, 5, 0) for seed in range(40)}) > 30
    assert len({drawn(1, prompt, 0) for prompt in range(1, 41)}) > 30
    assert len({drawn(1, 5, stream) for stream in range(40)}) > 30


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0, 0, 1, 3, 20]), min_size=1, max_size=700),
    st.one_of(st.floats(0, 1, exclude_max=True), st.just(1 - 2**-53), st.just(0.0)),
)
def test_draw_inverts_the_cumulative_distribution(weights: list[int], random: float) -> None:
    if not any(weights):
        weights[0] = 1
    row = np.array([math.log(weight) if weight else -math.inf for weight in weights], dtype=np.float32)
    drawn = draw(row, random)
    assert weights[drawn] > 0
    before, through = sum(weights[:drawn]), sum(weights[: drawn + 1])
    total, slack = sum(weights), 1e-4 * sum(weights)
    assert before - slack <= random * total <= through + slack


def test_fork_gives_an_independent_sequence_on_another_stream() -> None:
    base = request(SETTINGS[4], [1, 2])
    base.history.push(9)
    other = base.fork(stream=1)
    other.history.push(8)
    assert list(base.history.output) == [9]
    assert list(other.history.output) == [9, 8]
    assert (other.stream, other.seed, other.processors) == (1, base.seed, base.processors)
