"""Several greedy passes in one call: the same tokens, and nobody who waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.config import SamplingParams
from pelton.decode.processor import RequestTokens
from pelton.engine import MOST_PASSES, Engine
from pelton.errors import NotFiniteError
from pelton.events import TokenEvent
from pelton.exec.feedback import feed_back, repeats
from pelton.exec.native import NativeExecutor, NativeForward
from pelton.exec.native_screen import Screening
from pelton.exec.protocol import Executor, Until
from pelton.exec.reference import ReferenceExecutor, ReferenceForward
from pelton.kv import KVArena
from pelton.plan.passes import narrow
from pelton.sched.registry import SchedulerChoice
from pelton.spec.ngram import NgramDrafter
from pelton.types import I32, Batch

from .tiny import VOCAB, tiny_arena, tiny_plan, tiny_weights

WEIGHTS = tiny_weights(weight_format="Q8_0", spread=3.0)
PLAN = narrow(tiny_plan(WEIGHTS))
REFERENCE = ReferenceExecutor(PLAN, WEIGHTS)
LONG = 1e9  # seconds


class CountingExecutor(NativeExecutor):
    """Counts the passes that Python begins."""

    begun = 0

    def begin(self, batch: Batch, kv: KVArena) -> NativeForward:
        self.begun += 1
        return super().begin(batch, kv)


@pytest.fixture(scope="module", params=[True, False], ids=["head that finds", "stored logits"])
def native(request: pytest.FixtureRequest) -> Iterator[CountingExecutor]:
    """A head of any size is screened, or, as it is small, none."""
    with pytest.MonkeyPatch.context() as context:
        if request.param:
            context.setattr("pelton.exec.native.Screening", lambda pool: Screening(pool, least_bytes=1))
        executor = CountingExecutor(PLAN, WEIGHTS, 2)
    assert executor.compiled(frozenset()).has_head == request.param
    yield executor
    executor.close()


def engine(
    executor: Executor = REFERENCE, blocks: int = 64, seqs: int = 8, scheduler: str = "token-budget"
) -> Engine:
    arena = tiny_arena(PLAN, blocks)
    return Engine(executor, arena, 256, seqs, 64, scheduling=SchedulerChoice(scheduler))


def prompt(length: int, seed: int) -> I32:
    return np.random.default_rng(seed).integers(0, VOCAB, length).astype(np.int32)


def greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=max_tokens)


def finish(running: Engine, patience: float) -> tuple[dict[int, list[int]], list[list[TokenEvent]]]:
    """Texts by sequence, and what each step said."""
    texts: dict[int, list[int]] = {}
    steps: list[list[TokenEvent]] = []
    while running.has_work:
        steps.append(running.step(patience))
        for event in steps[-1]:
            if event.token is not None:
                texts.setdefault(event.sequence, []).append(event.token)
    running.check()
    assert running.pool.num_free == running.pool.num_blocks
    return texts, steps


def texts_of(
    executor: Executor,
    lengths: list[int],
    patience: float,
    blocks: int = 64,
    seqs: int = 8,
    scheduler: str = "token-budget",
) -> dict[int, list[int]]:
    running = engine(executor, blocks, seqs, scheduler)
    for seed, length in enumerate(lengths):
        running.add(prompt(9 + seed, seed), greedy(length), RequestTokens(VOCAB, (3, 7)), 5)
    return finish(running, patience)[0]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.sampled_from([64, 12]),
    st.sampled_from([2, 8]),
    st.sampled_from(["token-budget", "mlfq", "fair", "predicted-length"]),
)
@settings(max_examples=25, deadline=None)
def test_the_tokens_are_those_of_single_passes(
    lengths: list[int], blocks: int, seqs: int, scheduler: str
) -> None:
    once = texts_of(REFERENCE, lengths, 0.0)
    assert texts_of(REFERENCE, lengths, LONG, blocks, seqs, scheduler) == once


@pytest.mark.parametrize("lengths", [[40], [40, 5, 33], [50] * 9])
def test_the_native_program_feeds_itself(native: CountingExecutor, lengths: list[int]) -> None:
    native.begun = 0
    once = texts_of(native, lengths, 0.0)
    alone, native.begun = native.begun, 0
    assert texts_of(native, lengths, LONG) == once
    if native.compiled(frozenset()).has_head:
        assert native.begun < alone / 2  # the others were begun by the program
    else:
        assert native.begun == alone
    assert texts_of(native, lengths, LONG, blocks=14) == once


def test_a_call_runs_so_many_passes_at_most_and_only_for_the_patient() -> None:
    for patience, most in ((0.0, 1), (LONG, MOST_PASSES)):
        running = engine()
        (sequence,) = running.add(prompt(9, 1), greedy(40), RequestTokens(VOCAB), 5)
        counts = [len(events) for events in finish(running, patience)[1]]
        assert max(counts) == most
        assert sum(counts) == running.stats.generated == 40
        assert running.stats.steps == sum(count for count in counts)
        assert running.stats.rows == 9 + 39
        assert not running.is_live(sequence)


def drafting(executor: Executor) -> Engine:
    arena = tiny_arena(PLAN, 64)
    return Engine(executor, arena, 256, 8, 64, NgramDrafter(shortest=1), prefix_cache=False)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_drafts_between_calls_leave_the_tokens_as_they_are(lengths: list[int], seed: int) -> None:
    found = []
    for running, patience in ((engine(), 0.0), (drafting(REFERENCE), LONG)):
        for number, length in enumerate(lengths):
            running.add(prompt(9, seed + number), greedy(length), RequestTokens(VOCAB, (3, 7)), 5)
        found.append(finish(running, patience)[0])
    assert found[0] == found[1]


def test_a_text_that_repeats_ends_the_call(native: CountingExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there may be something to draft; the program ends it where the definition does."""

    def by_definition(forward: NativeForward, passes: int, until: Until) -> list[list[int]]:
        return feed_back(native, forward, passes, until)

    found = []
    for _ in range(2):
        running = drafting(native)
        for seed in (3, 4):
            running.add(prompt(9, seed), greedy(60), RequestTokens(VOCAB), 5)
        texts, steps = finish(running, LONG)
        found.append((texts, [len(events) for events in steps], running.stats.drafts))
        monkeypatch.setattr(NativeForward, "feed_back", by_definition)
    assert found[0] == found[1]
    assert found[0][2] > 0
    assert max(found[0][1]) > 2  # several passes of two sequences


@pytest.mark.parametrize(("row", "repeated"), [(1, 2), (-1, 2), (0, 0)])
def test_a_text_is_watched_for_a_row_there_is(native: CountingExecutor, row: int, repeated: int) -> None:
    compiled = native.compiled(frozenset())
    if not compiled.has_head:
        pytest.skip("this level runs one pass in a call")
    running = engine(native)
    running.add(prompt(9, 1), greedy(5), RequestTokens(VOCAB), 5)
    finish(running, 0.0)  # its last pass has one row
    with pytest.raises(ValueError, match="watched"):
        compiled.program.feed_back(2, [], [row], [prompt(9, 1)], repeated)


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 4))
def test_repeating_means_that_the_end_stands_earlier(tokens: list[int], size: int) -> None:
    ends = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size)]
    expected = len(tokens) > size and tuple(tokens[-size:]) in ends
    assert repeats(np.array(tokens, dtype=np.int32), size) == expected


def test_an_end_token_ends_the_call() -> None:
    """Nobody computes what follows it, and the others go on with the next step."""
    free = engine()
    (sequence,) = free.add(prompt(9, 2), greedy(60), RequestTokens(VOCAB), 5)
    text = finish(free, LONG)[0][sequence]
    place = next(i for i in range(2, 60) if text[i] not in text[:i])
    running = engine()
    stopping = replace(greedy(60), stop_token_ids=[text[place]])
    ended = running.add(prompt(9, 2), stopping, RequestTokens(VOCAB), 5)[0]
    other = running.add(prompt(9, 4), greedy(60), RequestTokens(VOCAB), 5)[0]
    texts, steps = finish(running, LONG)
    assert texts[ended] == text[: place + 1]
    assert len(texts[other]) == 60
    last = next(
        events for events in steps if any(event.finish and event.sequence == ended for event in events)
    )
    of_each = Counter(event.sequence for event in last)
    assert of_each[ended] == of_each[other]


def test_nobody_waits_for_a_place_longer_than_a_pass() -> None:
    running = engine(seqs=2)
    ids = [running.add(prompt(9, seed), greedy(20), RequestTokens(VOCAB), 5)[0] for seed in range(3)]
    while running.scheduler.num_waiting:
        assert all(count == 1 for count in Counter(e.sequence for e in running.step(LONG)).values())
    assert running.is_live(ids[2])
    finish(running, LONG)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, max_tokens=12, seed=3),
        replace(greedy(12), logprobs=2),
        replace(greedy(12), repetition_penalty=1.3),
        replace(greedy(12), prompt_logprobs=1),
    ],
)
def test_who_wants_logits_gets_each_pass_by_itself(params: SamplingParams) -> None:
    once, many = engine(), engine()
    for running in (once, many):
        running.add(prompt(9, 1), params, RequestTokens(VOCAB), 5)
    expected, _ = finish(once, 0.0)
    found, steps = finish(many, LONG)
    assert found == expected
    assert all(len([event for event in events if event.token is not None]) <= 1 for events in steps)


class SickForward(ReferenceForward):
    """Finds no number in its last row."""

    def greatest(self) -> list[int]:
        return [*super().greatest()[:-1], -1]


class SickExecutor(ReferenceExecutor):
    """Its sixth pass does."""

    passes = 0

    def begin(self, batch: Batch, kv: KVArena) -> ReferenceForward:
        self.passes += 1
        return SickForward(self, batch, kv) if self.passes == 6 else super().begin(batch, kv)


def test_where_a_row_has_no_number_the_call_ends_and_the_others_go_on() -> None:
    running = engine(SickExecutor(PLAN, WEIGHTS))
    healthy, sick = (running.add(prompt(9, seed), greedy(30), RequestTokens(VOCAB), 5)[0] for seed in (1, 2))
    texts, steps = finish(running, LONG)
    assert len(texts[healthy]) == 30
    assert len(texts[sick]) < 6
    errors = [event for events in steps for event in events if event.error is not None]
    assert [(event.sequence, type(event.error)) for event in errors] == [(sick, NotFiniteError)]
