"""Each processor against its definition in plain Python, on rows full of ties and refused tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pelton.config import SamplingParams
from pelton.decode.history import TokenHistory
from pelton.decode.masks import AllowedTokens, BadWords, BannedTokens, LogitBias, MinTokens
from pelton.decode.min_p import MinP
from pelton.decode.penalties import CountPenalty, RepetitionPenalty
from pelton.decode.pipeline import build_processors
from pelton.decode.processor import Processor, RequestTokens
from pelton.decode.temperature import Temperature
from pelton.decode.top_k import TopK
from pelton.decode.top_p import TopP
from pelton.decode.typical_p import TypicalP

Row = NDArray[np.float32]
V = 12
TOKENS = RequestTokens(V, end_token_ids=(0, 3))
IDS = st.lists(st.integers(0, V - 1), max_size=9)
SHARES = st.sampled_from([0.01, 0.1, 0.3, 0.5, 0.75, 0.9, 0.99])
VALUES = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 2.0, float("-inf")]), st.floats(-8, 8, width=32))
ROWS = st.lists(VALUES, min_size=V, max_size=V).map(lambda row: np.array(row, dtype=np.float32))
OPEN_ROWS = ROWS.filter(lambda row: bool(np.any(row > -np.inf)))
check = settings(deadline=None)


def applied(processor: Processor, row: Row, history: TokenHistory | None = None) -> Row:
    changed: Row = row.copy()
    processor.apply(changed, TokenHistory([]) if history is None else history)
    return changed


def refused_ids(row: Row) -> list[int]:
    return [i for i, value in enumerate(row.tolist()) if value == -math.inf]


def with_only(row: Row, kept: Iterable[int]) -> list[float]:
    kept = set(kept)
    return [value if i in kept else -math.inf for i, value in enumerate(row.tolist())]


def probabilities(row: Row) -> list[float]:
    peak = float(row.max())
    weights = [math.exp(value - peak) for value in row.tolist()]
    return [weight / math.fsum(weights) for weight in weights]


def by_value(row: Row) -> list[int]:
    return sorted(range(len(row)), key=lambda i: (-float(row[i]), i))


def fewest(order: list[int], shares: list[float], mass: float) -> list[int]:
    """The head of `order` that reaches `mass`; skips cases that rounding could decide either way."""
    kept, reached = [], 0.0
    for token in order:
        if reached >= mass:
            break
        kept.append(token)
        reached += shares[token]
        assume(abs(reached - mass) > 1e-9)
    return kept


@check
@given(OPEN_ROWS, st.integers(1, V - 1))
def test_top_k_keeps_exactly_the_k_largest(row: Row, k: int) -> None:
    assert applied(TopK(k), row).tolist() == with_only(row, by_value(row)[:k])


@check
@given(OPEN_ROWS, SHARES)
def test_top_p_keeps_the_fewest_tokens_with_that_mass(row: Row, p: float) -> None:
    kept = fewest(by_value(row), probabilities(row), p)
    assert applied(TopP(p), row).tolist() == with_only(row, kept)


@check
@given(OPEN_ROWS, st.sampled_from([0.01, 0.1, 0.5, 0.99, 1.0]))
def test_min_p_keeps_what_is_likely_enough(row: Row, ratio: float) -> None:
    shares, largest = probabilities(row), row.max()
    for value, share in zip(row, shares, strict=True):
        assume(value == largest or abs(share / max(shares) - ratio) > 1e-5)
    kept = [i for i, share in enumerate(shares) if row[i] == largest or share >= ratio * max(shares)]
    assert applied(MinP(ratio), row).tolist() == with_only(row, kept)


@check
@given(OPEN_ROWS, SHARES)
def test_typical_p_keeps_what_is_nearest_the_entropy(row: Row, p: float) -> None:
    shares = probabilities(row)
    surprises = [-math.log(share) if share > 0 else math.inf for share in shares]
    entropy = math.fsum(share * surprise for share, surprise in zip(shares, surprises, strict=True) if share)
    distances = [abs(surprise - entropy) for surprise in surprises]
    by_value_apart = sorted({float(value) for value in row})
    apart = sorted(distances[row.tolist().index(value)] for value in by_value_apart)
    assume(all(b - a > 1e-5 or b == math.inf for a, b in pairwise(apart)))
    order = sorted(range(V), key=lambda i: (round(distances[i], 9), i))
    assert applied(TypicalP(p), row).tolist() == with_only(row, fewest(order, shares, p))


@pytest.mark.parametrize("processor", [TopK(1), TopP(0.5), MinP(0.5), TypicalP(0.5), Temperature(0.5)])
def test_infinite_logits_share_all_the_probability(processor: Processor) -> None:
    row = np.array([1, np.inf, -np.inf, np.inf], dtype=np.float32)
    changed = applied(processor, row)
    assert changed[1] == np.inf
    assert not np.isnan(changed).any()


@pytest.mark.parametrize("processor", [TopK(2), TopP(0.5), MinP(0.5), TypicalP(0.5), Temperature(0.5)])
def test_a_row_without_any_token_stays_so(processor: Processor) -> None:
    assert applied(processor, np.full(4, -np.inf, dtype=np.float32)).tolist() == [-math.inf] * 4


def test_of_equal_tokens_the_lowest_ids_stay() -> None:
    row = np.zeros(6, dtype=np.float32)
    assert np.flatnonzero(applied(TopK(2), row) == 0).tolist() == [0, 1]
    assert np.flatnonzero(applied(TopP(0.5), row) == 0).tolist() == [0, 1, 2]
    assert np.flatnonzero(applied(TypicalP(0.3), row) == 0).tolist() == [0, 1]


@check
@given(ROWS, st.sampled_from([0.5, 0.9, 1.3, 2.0]), IDS, IDS)
def test_repetition_penalty_looks_at_prompt_and_output(
    row: Row, penalty: float, prompt: list[int], output: list[int]
) -> None:
    expected = row.copy()
    for token in set(prompt) | set(output):
        factor = np.float32(penalty)
        expected[token] = row[token] / factor if row[token] > 0 else row[token] * factor
    assert (
        applied(RepetitionPenalty(penalty), row, TokenHistory(prompt, output)).tolist() == expected.tolist()
    )


@check
@given(ROWS, st.floats(-2, 2), st.floats(-2, 2), IDS, IDS)
def test_count_penalties_look_at_the_output_alone(
    row: Row, frequency: float, presence: float, prompt: list[int], output: list[int]
) -> None:
    expected = [
        value - frequency * output.count(token) - presence * (token in output)
        for token, value in enumerate(row.tolist())
    ]
    changed = applied(CountPenalty(frequency, presence), row, TokenHistory(prompt, output))
    np.testing.assert_allclose(changed, expected, rtol=1e-5, atol=1e-5)
    untouched = [token for token in range(V) if token not in output]
    assert changed[untouched].tolist() == row[untouched].tolist()


@check
@given(ROWS, st.sampled_from([0.1, 0.7, 1.5, 100.0]))
def test_temperature_divides(row: Row, temperature: float) -> None:
    expected = [np.float32(value) / np.float32(temperature) for value in row]
    assert applied(Temperature(temperature), row).tolist() == expected


@check
@given(ROWS, IDS.filter(bool), IDS)
def test_masks_refuse_what_they_name(row: Row, allowed: list[int], banned: list[int]) -> None:
    assume(set(allowed) - set(banned))
    params = SamplingParams(allowed_token_ids=allowed, banned_token_ids=banned, temperature=0)
    changed = row.copy()
    for processor in build_processors(params, TOKENS):
        processor.apply(changed, TokenHistory([]))
    assert changed.tolist() == with_only(row, set(allowed) - set(banned))


def test_bad_words_are_refused_only_where_they_would_be_completed() -> None:
    tokens = RequestTokens(V, bad_sequences=((5,), (1, 2), (1, 1, 3)))
    row = np.zeros(V, dtype=np.float32)

    def refused(output: list[int]) -> list[int]:
        changed = row.copy()
        for processor in build_processors(SamplingParams(temperature=0), tokens):
            processor.apply(changed, TokenHistory([1, 1], output))
        return refused_ids(changed)

    assert refused([]) == [5]
    assert refused([1]) == [2, 5]
    assert refused([1, 1]) == [2, 3, 5]
    assert refused([1, 1, 4]) == [5]


def test_min_tokens_holds_back_end_and_stop_tokens() -> None:
    def refused(output: list[int], ignore_eos: bool) -> list[int]:
        params = SamplingParams(min_tokens=2, stop_token_ids=[7], temperature=0, ignore_eos=ignore_eos)
        (processor,) = build_processors(params, TOKENS)
        changed = applied(processor, np.zeros(V, dtype=np.float32), TokenHistory([9], output))
        return refused_ids(changed)

    assert refused([1], ignore_eos=False) == [0, 3, 7]
    assert refused([1], ignore_eos=True) == [7]
    assert refused([1, 1], ignore_eos=False) == []


def test_logit_bias_adds() -> None:
    row = np.array([1, -np.inf, 2, 3], dtype=np.float32)
    processor = LogitBias.from_params(SamplingParams(logit_bias={3: -1.5, 0: 2, 1: 100}), RequestTokens(4))
    assert processor is not None
    assert applied(processor, row).tolist() == [3.0, -math.inf, 2.0, 1.5]


def test_processors_come_in_vllms_order() -> None:
    params = SamplingParams(
        temperature=0.5, top_k=5, top_p=0.9, min_p=0.1, typical_p=0.9, repetition_penalty=1.2,
        frequency_penalty=0.1, logit_bias={1: 1.0}, allowed_token_ids=range(9), banned_token_ids=[1],
        min_tokens=1,
    )  # fmt: skip
    tokens = RequestTokens(V, (0,), ((1, 2),))
    always = [AllowedTokens, BannedTokens, BadWords, MinTokens, LogitBias, RepetitionPenalty, CountPenalty]
    sampling = [Temperature, MinP, TopK, TopP, TypicalP]
    assert [type(processor) for processor in build_processors(params, tokens)] == always + sampling


def test_settings_that_do_nothing_build_nothing() -> None:
    neutral = SamplingParams(top_k=V, min_tokens=3, ignore_eos=True, logit_bias={})
    assert build_processors(neutral, TOKENS) == ()
    assert build_processors(SamplingParams(top_k=-1), TOKENS) == ()
    greedy = SamplingParams(temperature=0, top_k=2, top_p=0.5, min_p=0.5, typical_p=0.5)
    assert build_processors(greedy, TOKENS) == ()


def test_processors_without_arrays_are_values() -> None:
    assert TopK(3) == TopK(3)
    assert RepetitionPenalty(1.5) != RepetitionPenalty(1.25)


def test_huge_logits_overflow_quietly_and_never_to_nan() -> None:
    row = np.array([3e38, -3e38, 1, -np.inf], dtype=np.float32)
    history = TokenHistory([0, 1, 2, 3], [0, 1])
    for processor in (RepetitionPenalty(0.01), CountPenalty(2, 2), Temperature(1e-5), TopP(0.5), MinP(1e-9)):
        processor.apply(row, history)
    assert row[0] == np.inf
    assert not np.isnan(row).any()
