from __future__ import annotations

import pytest

from pelton.config import SamplingParams
from pelton.decode.finish import Finish, FinishRules
from pelton.decode.processor import RequestTokens

TOKENS = RequestTokens(50, (2, 3))


def rules(params: SamplingParams, context_length: int = 100, prompt_length: int = 10) -> FinishRules:
    return FinishRules.from_params(params, TOKENS, context_length, prompt_length)


@pytest.mark.parametrize(
    ("token", "num_outputs", "expected"),
    [
        (9, 1, None),
        (2, 1, Finish("stop")),
        (3, 1, Finish("stop")),
        (7, 1, Finish("stop", 7)),
        (9, 5, Finish("length")),
        (2, 5, Finish("stop")),
        (7, 5, Finish("stop", 7)),
    ],
)
def test_end_and_stop_tokens_come_before_length(
    token: int, num_outputs: int, expected: Finish | None
) -> None:
    assert rules(SamplingParams(max_tokens=5, stop_token_ids=[7])).check(token, num_outputs) == expected


def test_ignore_eos_leaves_stop_tokens_alone() -> None:
    ignoring = rules(SamplingParams(ignore_eos=True, stop_token_ids=[3]))
    assert ignoring.check(2, 1) is None
    assert ignoring.check(3, 1) == Finish("stop", 3)


def test_nothing_stops_below_min_tokens() -> None:
    patient = rules(SamplingParams(min_tokens=3, max_tokens=3, stop_token_ids=[7]))
    assert patient.check(2, 2) is None
    assert patient.check(7, 2) is None
    assert patient.check(2, 3) == Finish("stop")


@pytest.mark.parametrize("max_tokens", [None, 50])
def test_the_context_ends_a_text(max_tokens: int | None) -> None:
    cut = rules(SamplingParams(max_tokens=max_tokens), context_length=14)
    assert cut.check(9, 3) is None
    assert cut.check(9, 4) == Finish("length")
