"""The loop on a tiny model: same text whatever the budget, the neighbours, preemption or drafts did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.config import SamplingParams
from pelton.decode.processor import RequestTokens
from pelton.engine import Engine
from pelton.errors import ContextOverflowError, OutOfBlocksError
from pelton.events import TokenEvent
from pelton.exec.reference import ReferenceExecutor
from pelton.spec.draft import Draft, Drafter
from pelton.spec.ngram import NgramDrafter
from pelton.types import I32

from .tiny import VOCAB, tiny_arena, tiny_plan, tiny_weights

WEIGHTS = tiny_weights(spread=3.0)
PLAN = tiny_plan(WEIGHTS)
TOKENS = RequestTokens(VOCAB)


def engine(blocks: int = 64, budget: int = 512, seqs: int = 8, drafter: Drafter | None = None) -> Engine:
    executor = ReferenceExecutor(PLAN, WEIGHTS)
    return Engine(executor, tiny_arena(PLAN, blocks), 256, seqs, budget, drafter)


def prompt(length: int, seed: int) -> I32:
    return np.random.default_rng(seed).integers(0, VOCAB, length).astype(np.int32)


def finish(running: Engine) -> tuple[dict[int, list[int]], list[TokenEvent]]:
    texts: dict[int, list[int]] = {}
    events: list[TokenEvent] = []
    while running.has_work:
        for event in running.step():
            events.append(event)
            if event.token is not None:
                texts.setdefault(event.sequence, []).append(event.token)
    running.check()
    assert running.pool.num_free == running.pool.num_blocks
    return texts, events


def alone(tokens: I32, params: SamplingParams, seed: int = 5) -> list[int]:
    solo = engine()
    (sequence,) = solo.add(tokens, params, TOKENS, seed)
    return finish(solo)[0][sequence]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("budget", "seqs", "blocks"), [(512, 8, 64), (7, 8, 64), (16, 3, 64), (32, 8, 9)])
def test_text_does_not_depend_on_batch_budget_or_preemption(
    temperature: float, budget: int, seqs: int, blocks: int
) -> None:
    params = SamplingParams(temperature=temperature, max_tokens=40)
    prompts = [prompt(length, length) for length in (3, 33, 50, 12, 64, 1)]
    busy = engine(blocks, budget, seqs)
    ids = [busy.add(tokens, params, TOKENS, 5)[0] for tokens in prompts]
    texts, events = finish(busy)
    for sequence, tokens in zip(ids, prompts, strict=True):
        assert texts[sequence] == alone(tokens, params)
    assert sum(event.is_last for event in events) == len(ids)


def test_siblings_share_the_prompt_and_differ_by_their_stream() -> None:
    params = SamplingParams(temperature=1.0, max_tokens=12, n=4)
    several = engine()
    ids = several.add(prompt(40, 1), params, TOKENS, 9)
    texts, _ = finish(several)
    assert texts[ids[0]] == alone(prompt(40, 1), SamplingParams(max_tokens=12), seed=9)
    assert len({tuple(texts[i]) for i in ids}) == 4


def test_aborting_the_leader_leaves_its_siblings_running() -> None:
    several = engine(budget=8)
    ids = several.add(prompt(40, 1), SamplingParams(max_tokens=5, n=3), TOKENS, 9)
    several.step()
    several.abort(ids[0])
    texts, _ = finish(several)
    assert set(texts) == set(ids[1:])


class ScriptedDrafter:
    """Proposes random trees in which, now and then, a branch is right."""

    def __init__(self, right: list[int], num_prompt: int, seed: int) -> None:
        self.right, self.num_prompt = right, num_prompt
        self.random = np.random.default_rng(seed)

    def propose(self, tokens: I32, most: int) -> Draft | None:
        future = self.right[len(tokens) - self.num_prompt :]
        size = int(self.random.integers(1, min(most, 24) + 1))
        parents = [int(self.random.integers(-1, i)) if i else -1 for i in range(size)]
        depth = [0] * size
        drafted = []
        for i, parent in enumerate(parents):
            depth[i] = 0 if parent < 0 else depth[parent] + 1
            right = depth[i] < len(future) and self.random.random() < 0.8
            drafted.append(future[depth[i]] if right else int(self.random.integers(VOCAB)))
        chain = self.random.random() < 0.3
        return Draft(tuple(drafted), None if chain else tuple(parents))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@given(seed=st.integers(0, 2**20))
@settings(max_examples=8, deadline=None)
def test_drafts_change_the_number_of_steps_never_the_text(temperature: float, seed: int) -> None:
    params = SamplingParams(temperature=temperature, max_tokens=30)
    tokens = prompt(35, seed)
    expected = alone(tokens, params)
    drafted = engine(drafter=ScriptedDrafter(expected, len(tokens), seed))
    (sequence,) = drafted.add(tokens, params, TOKENS, 5)
    assert finish(drafted)[0][sequence] == expected
    assert drafted.stats.accepted > 0


def test_ngram_drafts_repeat_what_was_said() -> None:
    tokens = np.tile(prompt(10, 3), 4)
    drafted = engine(drafter=NgramDrafter())
    (sequence,) = drafted.add(tokens, SamplingParams(temperature=0, max_tokens=30), TOKENS, 5)
    texts, _ = finish(drafted)
    assert texts[sequence] == alone(tokens, SamplingParams(temperature=0, max_tokens=30))
    assert drafted.stats.drafted > 0


def test_prompt_logprobs_cover_the_prompt_once_whatever_the_chunks() -> None:
    params = SamplingParams(max_tokens=3, prompt_logprobs=2)
    results = []
    for budget in (512, 9):
        scored = engine(budget=budget)
        scored.add(prompt(30, 2), params, TOKENS, 5)
        rows = [row for event in finish(scored)[1] for row in event.prompt_logprobs]
        assert len(rows) == 29
        results.append([max(entry.logprob for entry in row.values()) for row in rows])
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)


def test_a_request_too_large_for_the_arena_fails_alone() -> None:
    small = engine(blocks=2)
    (large,) = small.add(prompt(100, 1), SamplingParams(max_tokens=4), TOKENS, 1)
    (fits,) = small.add(prompt(10, 2), SamplingParams(max_tokens=4), TOKENS, 1)
    texts, events = finish(small)
    assert isinstance(next(e for e in events if e.sequence == large).error, OutOfBlocksError)
    assert len(texts[fits]) == 4


def test_context_overflow_names_both_numbers() -> None:
    with pytest.raises(ContextOverflowError, match=r"256 prompt tokens .* context of 256"):
        engine().add(prompt(256, 1), SamplingParams(), TOKENS, 1)


def test_roll_back_and_rerun_gives_the_same_tokens() -> None:
    params = SamplingParams(temperature=1.0, max_tokens=20)
    running = engine()
    running.add(prompt(20, 4), params, TOKENS, 7)
    said = []
    for _ in range(12):
        said += [event.token for event in running.step()]
    state = running.scheduler.running[0]
    state.roll_back(20 + 5)
    again = said[:5]
    while running.has_work:
        again += [event.token for event in running.step()]
    assert again[:12] == said
    assert again == alone(prompt(20, 4), params, seed=7)
