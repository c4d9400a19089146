"""Structured output through the engine: always of its form, and the same text whatever else happened."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.config import SamplingParams
from pelton.decode.processor import RequestTokens
from pelton.events import TokenEvent

from .decode.grammars import COMPILER, END, FORMS, text_of
from .test_engine import ScriptedDrafter, engine, finish, prompt


def params_for(name: str, temperature: float = 1.0, n: int = 1, most: int = 90) -> SamplingParams:
    return SamplingParams(
        structured_outputs=FORMS[name].wanted, temperature=temperature, n=n, max_tokens=most
    )


def tokens_for(name: str) -> RequestTokens:
    return RequestTokens(96, (END,), grammar=COMPILER.compile(FORMS[name].wanted))


def alone(name: str, params: SamplingParams, seed: int, length: int = 9) -> list[int]:
    solo = engine()
    (sequence,) = solo.add(prompt(length, seed), params, tokens_for(name), seed)
    return finish(solo)[0][sequence]


@pytest.mark.parametrize("name", FORMS)
def test_random_models_write_only_texts_of_the_form(name: str) -> None:
    """40 generations a form at temperature 1: those that end have it, the others are on their way to it."""
    busy = engine(blocks=256, seqs=40)
    for seed in range(10):
        busy.add(prompt(5, seed), params_for(name, n=4, most=150), tokens_for(name), seed)
    texts, events = finish(busy)
    finishes = {event.sequence: event for event in events if event.is_last}
    assert len(texts) == 40
    ended = 0
    for sequence, tokens in texts.items():
        check(name, tokens, finishes[sequence])
        ended += tokens[-1] == END
    assert ended > 3


def check(name: str, tokens: list[int], last: TokenEvent) -> None:
    assert last.error is None
    assert last.finish is not None
    if last.finish.finish_reason == "stop":
        assert tokens[-1] == END
        assert FORMS[name].accepts(text_of(tokens)), text_of(tokens)
    state = tokens_for(name).grammar
    assert state is not None
    walk = state.start()
    for token in tokens:
        assert walk.allowed()[token]
        walk.push(token)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("budget", "seqs", "blocks"), [(512, 8, 64), (7, 3, 64), (32, 8, 9)])
def test_batches_chunks_and_preemption_change_nothing(
    temperature: float, budget: int, seqs: int, blocks: int
) -> None:
    busy = engine(blocks, budget, seqs)
    ids = {}
    for seed, name in enumerate(sorted(FORMS)):
        params = params_for(name, temperature, most=60)
        (ids[name],) = busy.add(prompt(9 + 7 * seed, seed), params, tokens_for(name), seed)
    texts, _ = finish(busy)
    for seed, name in enumerate(sorted(FORMS)):
        expected = alone(name, params_for(name, temperature, most=60), seed, 9 + 7 * seed)
        assert texts[ids[name]] == expected


@given(name=st.sampled_from(sorted(FORMS)), seed=st.integers(0, 2**20), greedy=st.booleans())
@settings(max_examples=40)
def test_drafts_change_nothing(name: str, seed: int, greedy: bool) -> None:
    params = params_for(name, 0.0 if greedy else 1.0, most=40)
    expected = alone(name, params, seed)
    drafted = engine(drafter=ScriptedDrafter(expected, 9, seed))
    (sequence,) = drafted.add(prompt(9, seed), params, tokens_for(name), seed)
    assert finish(drafted)[0][sequence] == expected


def test_siblings_are_what_they_are_alone() -> None:
    tokens = tokens_for("person")
    together = engine(blocks=128)
    ids = together.add(prompt(9, 4), params_for("person", n=5), tokens, 4)
    texts, _ = finish(together)
    assert texts[ids[0]] == alone("person", params_for("person"), 4)
    assert len({tuple(texts[sequence]) for sequence in ids}) == 5
