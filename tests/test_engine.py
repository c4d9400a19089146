"""The loop on a tiny model: same text whatever the budget, the neighbours, preemption or drafts did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pelton.config import SamplingParams
from pelton.decode.processor import RequestTokens
from pelton.decode.request import DecodeRequest
from pelton.decode.sampler import Outcome, Sampler
from pelton.engine import Engine
from pelton.errors import ContextOverflowError, NotFiniteError, OutOfBlocksError
from pelton.events import TokenEvent
from pelton.exec.reference import ReferenceExecutor
from pelton.spec.draft import MOST_DRAFTED, Draft, Drafter
from pelton.spec.ngram import NgramDrafter
from pelton.types import I32

from .tiny import VOCAB, tiny_arena, tiny_plan, tiny_weights

WEIGHTS = tiny_weights(spread=3.0)
PLAN = tiny_plan(WEIGHTS)
TOKENS = RequestTokens(VOCAB)


def engine(
    blocks: int = 64,
    budget: int = 512,
    seqs: int = 8,
    drafter: Drafter | None = None,
    sampler: Sampler | None = None,
    prefix_cache: bool = True,
) -> Engine:
    executor = ReferenceExecutor(PLAN, WEIGHTS)
    return Engine(
        *(executor, tiny_arena(PLAN, blocks), 256, seqs, budget, drafter),
        sampler=sampler or Sampler(),
        prefix_cache=prefix_cache,
    )


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


def collect(running: Engine, ids: list[int]) -> tuple[list[list[int]], list[TokenEvent]]:
    """The texts of some sequences, in their order."""
    texts, events = finish(running)
    return [texts[number] for number in ids], events


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


@pytest.mark.parametrize("seqs", [1, 3, 4])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("length", [1, 20])
def test_siblings_run_only_as_far_as_there_are_places(seqs: int, cached: bool, length: int) -> None:
    params = SamplingParams(max_tokens=length, n=12, hidden_state=True)
    wide = engine()
    expected, _ = collect(wide, wide.add(prompt(40, 1), params, TOKENS, 9))
    narrow = engine(seqs=seqs, prefix_cache=cached)
    ids = narrow.add(prompt(40, 1), params, TOKENS, 9)
    texts, events = collect(narrow, ids)
    assert texts == expected
    assert max(step.decode for step in narrow.stats.recent) <= seqs
    assert (
        sum(event.is_last for event in events)
        == sum(event.hidden_state is not None for event in events)
        == 12
    )


def test_aborting_a_sibling_that_leads_the_waiting_ones_leaves_the_others() -> None:
    narrow = engine(seqs=2)
    ids = narrow.add(prompt(40, 1), SamplingParams(max_tokens=8, n=5), TOKENS, 9)
    first = narrow.step()
    narrow.abort(ids[2])
    events = [*first, *finish(narrow)[1]]
    assert Counter(event.sequence for event in events) == dict.fromkeys({*ids} - {ids[2]}, 8)


class Guess:
    """Always drafts as much as it may: the first of the tokens it saw, over and over."""

    shortest = 0

    def propose(self, tokens: I32, most: int) -> Draft | None:
        return Draft((int(tokens[0]),) * most)


@pytest.mark.parametrize("drafter", [NgramDrafter(length=2), Guess()])
def test_siblings_fork_where_a_draft_could_be_made_of_the_prompts_last_token(drafter: Drafter) -> None:
    tokens = np.tile(prompt(4, 3), 17)[:65]
    params = SamplingParams(max_tokens=12, n=3)
    plain, drafted = engine(), engine(budget=64, drafter=drafter)  # the 65th token is alone in its step
    expected, _ = collect(plain, plain.add(tokens, params, TOKENS, 5))
    ids = drafted.add(tokens, params, TOKENS, 5)
    texts, events = collect(drafted, ids)
    assert texts == expected
    firsts = [event.sequence for event in events if event.token is not None][:3]
    assert set(firsts) == set(ids)


def test_a_draft_may_be_longer_than_the_rows_of_a_scored_prompt() -> None:
    params = SamplingParams(max_tokens=100, temperature=0, prompt_logprobs=1)
    drafted = engine(drafter=Guess())
    (scored,) = drafted.add(prompt(10, 1), params, TOKENS, 5)
    texts, _ = finish(drafted)
    assert texts[scored] == alone(prompt(10, 1), SamplingParams(max_tokens=100, temperature=0))


def test_a_request_that_cannot_be_queued_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    running = engine()

    def fails(sequence: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(running.scheduler, "add", fails)
        with pytest.raises(MemoryError):
            running.add(prompt(5, 1), SamplingParams(n=3), TOKENS, 5)
    assert not running.has_work
    (sequence,) = running.add(prompt(5, 1), SamplingParams(max_tokens=6), TOKENS, 5)
    assert finish(running)[0] == {sequence: alone(prompt(5, 1), SamplingParams(max_tokens=6))}


class CountingSampler(Sampler):
    """Counts the rows it samples."""

    rows = 0

    def sample(self, logits: NDArray[np.float32], requests: Sequence[DecodeRequest]) -> list[Outcome]:
        CountingSampler.rows += len(requests)
        return super().sample(logits, requests)


@pytest.mark.parametrize("scored", [None, 1])
def test_a_request_for_no_token_samples_none(scored: int | None) -> None:
    CountingSampler.rows = 0
    quiet = engine(budget=16, sampler=CountingSampler())
    params = SamplingParams(max_tokens=0, hidden_state=True, prompt_logprobs=scored)
    (sequence,) = quiet.add(prompt(40, 1), params, TOKENS, 5)
    _, events = finish(quiet)
    assert CountingSampler.rows == quiet.stats.generated == 0
    last = events[-1]
    assert (last.sequence, last.token, last.is_last) == (sequence, None, True)
    assert sum(len(event.prompt_logprobs) for event in events) == (0 if scored is None else 39)
    loud = engine(budget=16)
    loud.add(prompt(40, 1), SamplingParams(max_tokens=1, hidden_state=True), TOKENS, 5)
    (token,) = (event for event in finish(loud)[1] if event.token is not None)
    assert last.hidden_state == token.hidden_state


def test_requests_for_no_token_run_beside_others() -> None:
    mixed = engine(budget=24)
    params = SamplingParams(max_tokens=0, hidden_state=True)
    (texts,) = mixed.add(prompt(30, 2), SamplingParams(max_tokens=9), TOKENS, 5)
    silent = [mixed.add(prompt(length, 3), params, TOKENS, 5)[0] for length in (1, 32, 50)]
    said, events = finish(mixed)
    assert said == {texts: alone(prompt(30, 2), SamplingParams(max_tokens=9))}
    assert {event.sequence for event in events if event.hidden_state is not None} == set(silent)


def test_a_hidden_state_that_is_no_number_fails_its_request() -> None:
    broken = dict(WEIGHTS) | {"output_norm": tiny_weights(spread=3.0)["output_norm"]}
    broken["output_norm"].data[:] = 0xFF  # NaN in float32
    sick = Engine(ReferenceExecutor(PLAN, broken), tiny_arena(PLAN), 256, 8, 512)
    sick.add(prompt(40, 1), SamplingParams(max_tokens=0, hidden_state=True), TOKENS, 5)
    _, events = finish(sick)
    assert isinstance(events[-1].error, NotFiniteError)


def test_aborting_the_leader_leaves_its_siblings_running() -> None:
    several = engine(budget=8)
    ids = several.add(prompt(40, 1), SamplingParams(max_tokens=5, n=3), TOKENS, 9)
    several.step()
    several.abort(ids[0])
    texts, _ = finish(several)
    assert set(texts) == set(ids[1:])


class ScriptedDrafter:
    """Proposes random trees in which, now and then, a branch is right."""

    shortest = 0

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


@dataclass(frozen=True)
class Knows:
    """Drafts what plain decoding said after a prompt."""

    right: list[int]
    num_prompt: int
    shortest: int = 0

    def propose(self, tokens: I32, most: int) -> Draft | None:
        return Draft(tuple(self.right[len(tokens) - self.num_prompt :][:most]))


def test_a_draft_of_the_greatest_length_may_be_right_as_a_whole() -> None:
    params = SamplingParams(temperature=0, max_tokens=MOST_DRAFTED + 10)
    right = alone(prompt(5, 3), params)

    drafted = engine(drafter=Knows(right, 5))
    (sequence,) = drafted.add(prompt(5, 3), params, TOKENS, 5)
    assert finish(drafted)[0][sequence] == right
    assert drafted.stats.accepted_at[-1] == 1


def test_what_a_draft_says_beyond_the_end_counts_for_nothing() -> None:
    right = alone(prompt(5, 3), SamplingParams(temperature=0, max_tokens=40))
    place = next(i for i in range(2, 40) if right[i] not in right[:i])

    drafted = engine(drafter=Knows(right, 5))
    params = SamplingParams(temperature=0, max_tokens=40, stop_token_ids=[right[place]])
    (sequence,) = drafted.add(prompt(5, 3), params, TOKENS, 5)
    assert finish(drafted)[0][sequence] == right[: place + 1]
    assert drafted.stats.accepted == place  # all but the first, which the prompt gave


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
