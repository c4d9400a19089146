"""Any draft, chain or tree, gives the text of plain decoding, at any temperature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pelton.config import SamplingParams
from pelton.decode.accept import CoupledVerifier
from pelton.decode.processor import RequestTokens
from pelton.decode.request import DecodeRequest
from pelton.decode.sampler import Decoded, Outcome, Sampler
from pelton.errors import RequestError

V = 7
TOKENS = RequestTokens(V, (0,), ((1, 2), (3,)))
PROMPT = [4, 5]
SAMPLER = Sampler()
VERIFIER = CoupledVerifier(SAMPLER)

PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([1.0, 0.8]),
    min_p=st.sampled_from([0.0, 0.1]),
    typical_p=st.sampled_from([1.0, 0.7]),
    repetition_penalty=st.sampled_from([1.0, 1.8]),
    frequency_penalty=st.sampled_from([0.0, 1.5]),
    min_tokens=st.sampled_from([0, 3]),
    logprobs=st.sampled_from([None, 2]),
    seed=st.integers(0, 2**63 - 1),
)


def model(context: tuple[int, ...]) -> NDArray[np.float32]:
    """A language model of one table: logits [V] fixed by the whole context."""
    random = np.random.default_rng(list(context))
    return (random.standard_normal(V) * 2).astype(np.float32)


def new_request(params: SamplingParams) -> DecodeRequest:
    assert params.seed is not None
    return DecodeRequest.from_params(params, TOKENS, PROMPT, params.seed, stream=1)


def plain(params: SamplingParams, steps: int) -> list[Outcome]:
    request = new_request(params)
    outcomes: list[Outcome] = []
    for _ in range(steps):
        context = (*PROMPT, *request.history.output)
        (outcome,) = SAMPLER.sample(model(context)[None], [request])
        assert isinstance(outcome, Decoded)
        request.history.push(outcome.token)
        outcomes.append(outcome)
    return outcomes


def span_logits(output: list[int], tokens: list[int], parents: list[int]) -> NDArray[np.float32]:
    """What one forward over the span computes: row i sees the context and its own ancestors."""
    contexts: list[tuple[int, ...]] = [(*PROMPT, *output)]
    contexts += [() for _ in tokens[1:]]
    for row in range(1, len(tokens)):
        contexts[row] = (*contexts[parents[row]], tokens[row])
    return np.stack([model(context) for context in contexts])


@st.composite
def drafts(draw: st.DrawFn, future: list[int]) -> tuple[list[int], list[int] | None]:
    """Half the guesses are right, so that paths of every length get accepted; siblings may be equal."""
    count = draw(st.integers(0, 10))
    chain = draw(st.booleans())
    tokens, parents, depths = [PROMPT[-1]], [-1], [0]
    for row in range(1, count + 1):
        parent = row - 1 if chain else draw(st.integers(0, row - 1))
        depth = depths[parent] + 1
        right = draw(st.booleans()) and depth <= len(future)
        tokens.append(future[depth - 1] if right else draw(st.integers(0, V - 1)))
        parents.append(parent)
        depths.append(depth)
    return tokens, None if chain else parents


@settings(deadline=None, max_examples=150)
@given(PARAMS, st.data())
def test_any_draft_gives_the_text_of_plain_decoding(params: SamplingParams, data: st.DataObject) -> None:
    steps = 12
    expected = plain(params, steps)
    future = [outcome.token for outcome in expected if isinstance(outcome, Decoded)]
    request = new_request(params)
    got: list[Outcome] = []
    while len(got) < steps:
        output = list(request.history.output)
        tokens, parents = data.draw(drafts(future[len(output) :]))
        chain = list(range(-1, len(tokens) - 1))
        logits = span_logits(output, tokens, chain if parents is None else parents)
        accepted = VERIFIER.verify(logits, tokens, parents, request)
        assert list(request.history.output) == output
        assert len(accepted.outcomes) == len(accepted.path) + 1
        previous = 0
        for row, outcome in zip(accepted.path, accepted.outcomes, strict=False):
            assert isinstance(outcome, Decoded)
            assert tokens[row] == outcome.token
            assert (chain if parents is None else parents)[row] == previous
            previous = row
        for outcome in accepted.outcomes:
            assert isinstance(outcome, Decoded)
            request.history.push(outcome.token)
        got += accepted.outcomes
    assert got[:steps] == expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_right_chain_is_accepted_whole(temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=9, repetition_penalty=1.5)
    future = [outcome.token for outcome in plain(params, 6) if isinstance(outcome, Decoded)]
    tokens = [PROMPT[-1], *future[:5]]
    logits = span_logits([], tokens, list(range(-1, 5)))
    accepted = VERIFIER.verify(logits, tokens, None, new_request(params))
    assert accepted.path == (1, 2, 3, 4, 5)
    assert [outcome.token for outcome in accepted.outcomes if isinstance(outcome, Decoded)] == future


def test_a_bad_row_ends_the_walk_with_its_error_and_keeps_what_came_before() -> None:
    request = new_request(SamplingParams(temperature=0, seed=1))
    logits = np.zeros((3, V), dtype=np.float32)
    logits[0, 5] = logits[1, 6] = 1
    logits[2] = np.nan
    accepted = VERIFIER.verify(logits, [4, 5, 6], None, request)
    assert accepted.path == (1, 2)
    assert accepted.outcomes[:2] == (Decoded(5), Decoded(6))
    assert isinstance(accepted.outcomes[2], RequestError)
    assert request.history.num_outputs == 0


def test_of_equal_siblings_the_first_is_followed() -> None:
    logits = np.zeros((4, V), dtype=np.float32)
    logits[:, 5] = 1
    accepted = VERIFIER.verify(
        logits, [4, 2, 5, 5], [-1, 0, 0, 0], new_request(SamplingParams(temperature=0, seed=0))
    )
    assert accepted.path == (2,)
    assert VERIFIER.exact
