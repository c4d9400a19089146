"""A KV pool hardly larger than one request, 64 requests: everyone ends, with the text of running alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pelton.config import SamplingParams
from pelton.decode.processor import RequestTokens
from pelton.engine import Engine
from pelton.exec.reference import ReferenceExecutor
from pelton.sched.registry import POLICIES, SchedulerChoice
from pelton.sched.victims import MOST_PREEMPTIONS
from pelton.terms import RequestTerms
from pelton.types import I32

from ..tiny import VOCAB, tiny_arena, tiny_plan, tiny_weights

WEIGHTS = tiny_weights(spread=3.0)
PLAN = tiny_plan(WEIGHTS)
TOKENS = RequestTokens(VOCAB)
CONTEXT, LARGEST = 256, 160
BLOCKS = -(-LARGEST * 12 // 10 // 32)
MOST_QUIET_STEPS = 50


def engine(name: str, blocks: int, swap_blocks: int = 0, seqs: int = 8) -> Engine:
    arena = tiny_arena(PLAN, blocks)
    choice = SchedulerChoice(name, swap_bytes=swap_blocks * arena.layout.block_bytes)
    return Engine(ReferenceExecutor(PLAN, WEIGHTS), arena, CONTEXT, seqs, 32, scheduling=choice)


def requests() -> Iterator[tuple[I32, SamplingParams, RequestTerms]]:
    """64 of 10 to 160 tokens, answer included; one of them cannot fit at all."""
    random = np.random.default_rng(5)
    for index in range(64):
        size = 250 if index == 20 else int(random.integers(5, LARGEST - 40))
        length = 4 if index == 20 else int(random.integers(4, 28))
        terms = RequestTerms(
            priority=int(random.integers(-1, 2)),
            deadline=None if index % 3 else float(random.uniform(0.05, 5)),
            tenant="abc"[index % 3],
            program="" if index % 4 else f"p{index % 8}",
        )
        params = SamplingParams(temperature=0.0 if index % 2 else 1.0, max_tokens=length, ignore_eos=True)
        yield random.integers(0, VOCAB, size).astype(np.int32), params, terms


REQUESTS = list(requests())


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    """What each says with memory for everyone: no preemption."""
    roomy = engine("token-budget", 64 * 9, seqs=32)
    ids = [roomy.add(prompt, params, TOKENS, 3, terms)[0] for prompt, params, terms in REQUESTS]
    texts: dict[int, list[int]] = {number: [] for number in ids}
    while roomy.has_work:
        for event in roomy.step():
            assert event.token is not None
            texts[event.sequence].append(event.token)
    assert roomy.stats.preemptions == 0
    return [texts[number] for number in ids]


CASES = [(name, 0) for name in POLICIES] + [("token-budget", 40), ("mlfq", 40), ("fair", 40)]


@pytest.mark.parametrize(("name", "swap_blocks"), CASES)
def test_everyone_ends_with_the_same_text(name: str, swap_blocks: int, expected: list[list[int]]) -> None:
    crowded = engine(name, BLOCKS, swap_blocks)
    texts: dict[int, list[int]] = {}
    errors: dict[int, Exception] = {}
    ids: list[int] = []
    quiet = steps = 0
    arrivals = iter(REQUESTS)
    while crowded.has_work or len(ids) < len(REQUESTS):
        while len(ids) < len(REQUESTS) and len(ids) <= steps // 3:
            prompt, params, terms = next(arrivals)
            ids += crowded.add(prompt, params, TOKENS, 3, terms)
        events = crowded.step()
        steps += 1
        quiet = 0 if events else quiet + 1
        assert quiet <= MOST_QUIET_STEPS
        assert all(s.preemptions <= MOST_PREEMPTIONS for s in crowded.scheduler.running)
        for event in events:
            if event.error is not None:
                errors[event.sequence] = event.error
            if event.token is not None:
                texts.setdefault(event.sequence, []).append(event.token)
    crowded.check()
    assert set(errors) == {ids[20]}
    for index, number in enumerate(ids):
        assert number in errors or texts[number] == expected[index]
    assert crowded.pool.num_free == crowded.pool.num_blocks
