"""The engine with a prefix cache: the same bits as without, and only new tokens are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton import LLM
from pelton.config import SamplingParams
from pelton.decode.processor import RequestTokens
from pelton.engine import Engine
from pelton.errors import NotFiniteError
from pelton.events import TokenEvent
from pelton.exec.native import F32, NativeExecutor, NativeForward
from pelton.exec.protocol import Executor
from pelton.kv import EVICTIONS, CacheFolder, DiskTier, KVArena, KVLayout
from pelton.models.load import LoadedModel
from pelton.spec.draft import Drafter
from pelton.spec.ngram import NgramDrafter
from pelton.terms import RequestTerms
from pelton.types import BLOCK_SIZE, Batch

from .tiny import VOCAB, tiny_arena, tiny_plan, tiny_weights

WEIGHTS = tiny_weights(spread=3.0, weight_format="Q8_0")
PLAN = tiny_plan(WEIGHTS)
EXECUTOR = NativeExecutor(PLAN, WEIGHTS, threads=1)
TOKENS = RequestTokens(VOCAB)


def engine(
    blocks: int = 64,
    budget: int = 512,
    seqs: int = 8,
    drafter: Drafter | None = None,
    cache: bool = True,
    eviction: str = "lru",
    window: int | None = None,
) -> Engine:
    policy = EVICTIONS[eviction]()
    arena = tiny_arena(PLAN, blocks)
    return Engine(
        EXECUTOR,
        arena,
        512,
        seqs,
        budget,
        drafter,
        prefix_cache=cache,
        prefix_window=window,
        eviction=policy,
    )


def prompt(length: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, VOCAB, length)]


@dataclass
class Answer:
    """A sequence's tokens, every number that came with them, and how much of its prompt was cached."""

    tokens: list[int]
    numbers: list[object]
    cached: int = 0


def add(
    running: Engine, tokens: Sequence[int], params: SamplingParams, salt: str = "", seed: int = 5
) -> list[int]:
    terms = RequestTerms(cache_salt=salt)
    return running.add(np.array(tokens, np.int32), params, TOKENS, seed, terms)


def take(answers: dict[int, Answer], events: Sequence[TokenEvent]) -> None:
    for event in events:
        assert event.error is None
        answer = answers.setdefault(event.sequence, Answer([], []))
        answer.numbers += event.prompt_logprobs
        if event.token is not None:
            answer.tokens.append(event.token)
            answer.numbers.append(event.logprobs)
            answer.cached = event.num_cached


def finish(running: Engine) -> dict[int, Answer]:
    answers: dict[int, Answer] = {}
    while running.has_work:
        take(answers, running.step())
        running.check()
    assert running.pool.num_free == running.pool.num_blocks
    return answers


def ask(running: Engine, tokens: Sequence[int], params: SamplingParams, salt: str = "") -> Answer:
    (sequence,) = add(running, tokens, params, salt)
    return finish(running)[sequence]


def cold(tokens: Sequence[int], params: SamplingParams) -> Answer:
    return ask(engine(cache=False), tokens, params)


def sampled(count: int, temperature: float = 1.0) -> SamplingParams:
    return SamplingParams(temperature=temperature, max_tokens=count, logprobs=3)


@pytest.mark.parametrize("drafter", [None, NgramDrafter()])
def test_a_growing_conversation_computes_only_its_new_tokens(drafter: NgramDrafter | None) -> None:
    warm, said = engine(drafter=drafter), prompt(50, 1)
    for turn in range(5):
        expected = cold(said, sampled(23))
        known = 0 if turn == 0 else len(said) - 9  # all but the user's 8 and the answer's last token
        rows = warm.stats.rows
        answer = ask(warm, said, sampled(23))
        assert (answer.tokens, answer.numbers) == (expected.tokens, expected.numbers)
        assert answer.cached == known
        if drafter is None:
            assert warm.stats.rows - rows == len(said) - known + 22
        said += answer.tokens + prompt(8, turn)
    assert warm.prefixes is not None
    assert warm.prefixes.stats.hits > 0.6 * warm.prefixes.stats.queries


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_cached_answers_are_the_bits_of_cold_ones(data: st.DataObject) -> None:
    """Requests that share prefixes, in any batch, chunks and arena: evictions and preemptions included."""
    budget, seqs = data.draw(st.sampled_from([(512, 8), (7, 3), (33, 4)]))
    drafter = data.draw(st.sampled_from([None, NgramDrafter()]))
    eviction = data.draw(st.sampled_from(sorted(EVICTIONS)))
    warm = engine(data.draw(st.integers(12, 40)), budget, seqs, drafter, eviction=eviction)
    stems = [prompt(length, length) for length in (40, 64, 90)]
    expected: dict[int, Answer] = {}
    answers: dict[int, Answer] = {}
    for _ in range(data.draw(st.integers(2, 8))):
        stem = data.draw(st.sampled_from(stems))
        tokens = stem[: data.draw(st.integers(1, len(stem)))] + prompt(data.draw(st.integers(0, 50)), 9)
        params = sampled(data.draw(st.integers(1, 60)), data.draw(st.sampled_from([0.0, 1.0])))
        (sequence,) = add(warm, tokens, params)
        expected[sequence] = cold(tokens, params)
        for _ in range(data.draw(st.integers(0, 10))):
            take(answers, warm.step())
            warm.check()
    for sequence, answer in finish(warm).items():
        answers.setdefault(sequence, Answer([], [])).tokens += answer.tokens
        answers[sequence].numbers += answer.numbers
    for sequence, answer in expected.items():
        assert answers[sequence].tokens == answer.tokens
        assert answers[sequence].numbers == answer.numbers


def test_an_idle_prefix_gives_way_though_the_pool_has_room() -> None:
    warm = engine(blocks=400, window=16)
    for seed in [*range(20), 0]:
        tokens = prompt(90, seed)
        answer, expected = ask(warm, tokens, sampled(6)), cold(tokens, sampled(6))
        assert (answer.tokens, answer.numbers) == (expected.tokens, expected.numbers)
        assert answer.cached < BLOCK_SIZE
    assert warm.prefixes is not None
    assert warm.prefixes.num_blocks < 30
    assert warm.prefixes.working_set.window > 16  # the first one was missed


def test_keys_and_values_are_the_same_bits() -> None:
    warm, bare = engine(), engine(cache=False)
    tokens = prompt(150, 2)
    ask(warm, tokens[:77], sampled(1))
    held = []
    for running in (warm, bare):
        add(running, tokens, sampled(40))
        while running.stats.generated < 39:
            running.step()
        (sequence,) = running.scheduler.running
        blocks = sequence.table.blocks[: sequence.computed // 32]
        held.append((running.kv.keys[blocks].tobytes(), running.kv.values[blocks].tobytes()))
    assert warm.scheduler.running[0].num_cached == 77
    assert held[0] == held[1]


def test_siblings_and_their_request_again() -> None:
    warm = engine()
    params = SamplingParams(temperature=1.0, max_tokens=30, n=3)
    texts = []
    for _ in range(2):
        ids = add(warm, prompt(70, 3), params)
        answers = finish(warm)
        texts.append([answers[i].tokens for i in ids])
    assert texts[0] == texts[1]
    assert answers[ids[0]].cached == 69


def test_prompt_logprobs_are_computed_and_fill_the_cache() -> None:
    tokens = prompt(80, 4)
    params = SamplingParams(max_tokens=4, prompt_logprobs=2, logprobs=2)
    warm = engine(budget=30)
    first, again = (ask(warm, tokens, params) for _ in range(2))
    assert first.numbers == again.numbers == cold(tokens, params).numbers
    assert again.cached == 0
    assert ask(warm, tokens, sampled(4)).cached == 79


def test_a_preempted_sequence_finds_its_own_prefix() -> None:
    warm = engine(blocks=10, seqs=4)
    ids = [add(warm, prompt(60, seed), sampled(60))[0] for seed in range(4)]
    answers = finish(warm)
    assert warm.stats.preemptions > 0
    for sequence, seed in zip(ids, range(4), strict=True):
        assert answers[sequence].tokens == cold(prompt(60, seed), sampled(60)).tokens
        assert answers[sequence].cached == 0
    without = engine(blocks=10, seqs=4, cache=False)
    for seed in range(4):
        add(without, prompt(60, seed), sampled(60))
    finish(without)
    assert warm.stats.rows < without.stats.rows


def test_no_token_is_found_across_salts() -> None:
    warm, tokens = engine(), prompt(90, 5)
    answers = [ask(warm, tokens, sampled(20), salt) for salt in ("", "a", "b", "a", "b", "")]
    assert [answer.cached for answer in answers] == [0, 0, 0, 89, 89, 89]
    assert len({tuple(answer.tokens) for answer in answers}) == 1


class BrokenForward(NativeForward):
    """Ends in nothing but NaN, as after a flipped bit."""

    def logits(self) -> F32:
        return np.full_like(super().logits(), np.nan)

    def greatest(self) -> list[int]:
        return [-1] * len(super().greatest())


class BreakableExecutor(NativeExecutor):
    broken = False

    def begin(self, batch: Batch, kv: KVArena) -> NativeForward:
        if not self.broken:
            return super().begin(batch, kv)
        self.current = None
        self.current = BrokenForward(self, batch, kv)
        return self.current


def test_a_sequence_without_finite_numbers_leaves_nothing_behind() -> None:
    executor, tokens = BreakableExecutor(PLAN, WEIGHTS, threads=1), prompt(90, 6)
    warm = Engine(executor, tiny_arena(PLAN, 64), 512)
    ask(warm, tokens, sampled(2))
    ask(warm, prompt(90, 7), sampled(2))
    executor.broken = True
    add(warm, tokens, sampled(20))
    (event,) = warm.step()
    assert isinstance(event.error, NotFiniteError)
    executor.broken = False
    warm.check()
    assert [ask(warm, prompt(90, seed), sampled(2)).cached for seed in (6, 7)] == [0, 89]


@pytest.mark.parametrize("blocks", [12, 64])
def test_a_restart_finds_what_was_said_before(tmp_path: Path, blocks: int) -> None:
    said, answers = prompt(200, 7), []
    for turn in range(3):
        arena = tiny_arena(PLAN, blocks)
        disk = DiskTier(CacheFolder(tmp_path), arena, bytes(32), 1 << 30)
        warm = Engine(EXECUTOR, arena, 512, 8, 512, disk=disk)
        assert warm.prefixes is not None
        expected = cold(said, sampled(10))
        answers.append(ask(warm, said, sampled(10)))
        assert (answers[-1].tokens, answers[-1].numbers) == (expected.tokens, expected.numbers)
        assert answers[-1].cached == (0 if turn == 0 else len(said) - 5)
        ask(warm, prompt(300, turn), sampled(1))
        said += answers[-1].tokens + prompt(4, turn)
        warm.prefixes.close()


def test_a_model_loaded_again_finds_its_folder(real_model_path: Path, tmp_path: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    outputs = []
    for isa in (None, None, "generic"):
        with LLM(
            str(real_model_path),
            isa=isa,
            context_length=128,
            threads=1,
            kv_memory=16 << 20,
            kv_cache_dir=str(tmp_path),
        ) as llm:
            outputs += llm.generate("one two three four five " * 8, params)
    assert [output.num_cached_tokens for output in outputs] == [0, len(outputs[0].prompt_token_ids) - 1, 0]
    assert outputs[0].outputs[0].token_ids == outputs[1].outputs[0].token_ids


@pytest.fixture(scope="module")
def real_executor(real_model: LoadedModel) -> Executor:
    return NativeExecutor(real_model.plan, real_model.weights, threads=1)


def test_the_real_model(real_model: LoadedModel, real_executor: Executor) -> None:
    layout = KVLayout(real_model.plan.kv)
    tokens = RequestTokens(real_model.plan.vocab_size)
    texts: list[list[object]] = []
    for cache in (False, True):
        running = Engine(real_executor, KVArena(layout, 16), 512, 2, 100, prefix_cache=cache)
        numbers: list[object] = []
        said = [int(t) for t in np.random.default_rng(0).integers(0, real_model.plan.vocab_size, 70)]
        for turn in range(3):
            running.add(np.array(said, np.int32), sampled(20), tokens, 3)
            running.add(np.array(said[:40], np.int32), sampled(10), tokens, 4)
            answers = finish(running)
            numbers += [(answer.tokens, answer.numbers) for answer in answers.values()]
            said += [*answers[min(answers)].tokens, turn]
        texts.append(numbers)
    assert running.prefixes is not None
    assert running.prefixes.stats.hits > 250
    assert texts[0] == texts[1]
