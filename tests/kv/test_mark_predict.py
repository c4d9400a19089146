"""Mark&Predict keeps its bounds for any bits, nears the optimum for right ones, and its predictor learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.kv import (
    BlockPool,
    BlockTable,
    EvictionPolicy,
    LeastRecentlyUsed,
    MarkAndPredict,
    Prefix,
    PrefixCache,
)
from pelton.kv.reuse import ReuseCounts, Traits
from pelton.types import BLOCK_SIZE

Trace = Sequence[int]


class Scripted:
    """Says what it is told to, request by request."""

    def __init__(self, bits: Sequence[bool]) -> None:
        self.bits = list(bits)
        self.at = -1

    def predict(self, traits: Traits) -> bool:
        return self.bits[self.at]

    def learn(self, traits: Traits, reused: bool) -> None:
        pass


def misses(
    policy: EvictionPolicy, trace: Trace, size: int, tick: Callable[[int], None] = lambda at: None
) -> int:
    """Run a trace of pages, each a sequence of one block, through a cache of `size` blocks."""
    pool = BlockPool(size)
    cache = PrefixCache(pool, policy)
    missed = 0
    for at, page in enumerate(trace):
        tick(at)
        tokens = np.full(BLOCK_SIZE, page, np.int32)
        table = BlockTable(pool, lambda a, b: None)
        prefix = Prefix(cache, table, str(page))  # a salt each, so that no two pages agree in a beginning
        if prefix.extend(tokens, 0, BLOCK_SIZE) == 0:
            missed += 1
            table.prepare(0, BLOCK_SIZE)
        prefix.finish(tokens, BLOCK_SIZE)
        table.release()
    cache.check()
    return missed


def optimum(trace: Trace, size: int) -> int:
    """Misses of Belady's policy, which evicts the page whose next request is farthest away."""
    held: set[int] = set()
    missed = 0
    for at, page in enumerate(trace):
        if page in held:
            continue
        missed += 1
        if len(held) == size:
            rest = list(trace[at + 1 :])
            held.remove(max(held, key=lambda p: rest.index(p) if p in rest else len(rest)))
        held.add(page)
    return missed


def phases(trace: Trace, size: int) -> list[int]:
    """The phase of each request: as long as possible with at most `size` different pages."""
    numbers, seen, phase = [], set[int](), 0
    for page in trace:
        if len(seen | {page}) > size:
            seen, phase = set(), phase + 1
        seen.add(page)
        numbers.append(phase)
    return numbers


def right_bits(trace: Trace, size: int) -> list[bool]:
    phase = phases(trace, size)
    wanted = {(phase[at], page) for at, page in enumerate(trace)}
    return [(phase[at] + 1, page) in wanted for at, page in enumerate(trace)]


def with_bits(bits: Sequence[bool], trace: Trace, size: int, seed: int = 0) -> int:
    predictor = Scripted(bits)

    def tick(at: int) -> None:
        predictor.at = at

    return misses(MarkAndPredict(predictor, seed), trace, size, tick)


TRACES = st.lists(st.integers(0, 11), min_size=1, max_size=120)


@given(trace=TRACES, size=st.integers(1, 8), data=st.data())
@settings(max_examples=80)
def test_any_bits_cost_at_most_a_cache_a_phase(trace: list[int], size: int, data: st.DataObject) -> None:
    bits = data.draw(
        st.lists(st.booleans(), min_size=len(trace), max_size=len(trace))
        | st.just([not bit for bit in right_bits(trace, size)])
    )
    missed = with_bits(bits, trace, size)
    assert missed <= size * (phases(trace, size)[-1] + 1)
    assert missed <= size * (optimum(trace, size) + 1)


@given(trace=TRACES, size=st.integers(1, 8), seed=st.integers(0, 9))
@settings(max_examples=80)
def test_right_bits_cost_at_most_twice_the_optimum(trace: list[int], size: int, seed: int) -> None:
    assert with_bits(right_bits(trace, size), trace, size, seed) <= 2 * optimum(trace, size) + size


def test_wrong_bits_cost_a_logarithm_where_the_least_recently_used_always_misses() -> None:
    size = 16
    trace = list(range(size + 1)) * 40
    harmonic = sum(1 / i for i in range(1, size + 1))
    wrong = [not bit for bit in right_bits(trace, size)]
    assert misses(LeastRecentlyUsed(), trace, size) == len(trace)
    assert with_bits(wrong, trace, size) <= (2 * harmonic + 1) * optimum(trace, size)
    assert with_bits([True] * len(trace), trace, size) <= (2 * harmonic + 1) * optimum(trace, size)


def agents(rounds: int, seed: int) -> tuple[list[list[int]], int]:
    """Prompts of agents that share few long instructions, among many requests that never come back."""
    random = np.random.default_rng(seed)
    shared = [random.integers(0, 1000, 4 * BLOCK_SIZE).tolist() for _ in range(4)]
    prompts = []
    for _ in range(rounds):
        prompts.append(shared[random.integers(4)] + random.integers(0, 1000, 40).tolist())
        prompts += [random.integers(0, 1000, 5 * BLOCK_SIZE).tolist() for _ in range(3)]
    return prompts, 32


def found_tokens(policy: EvictionPolicy, prompts: list[list[int]], blocks: int) -> int:
    pool = BlockPool(blocks)
    cache = PrefixCache(pool, policy)
    for prompt in prompts:
        tokens = np.array(prompt, np.int32)
        table = BlockTable(pool, lambda a, b: None)
        prefix = Prefix(cache, table, "")
        prefix.count(len(prompt), prefix.extend(tokens, 0, len(tokens) - 1))
        table.prepare(0, len(tokens))
        prefix.finish(tokens, len(tokens))
        table.release()
    cache.check()
    pool.check([])
    return cache.stats.hits


def test_the_predictor_learns_which_blocks_come_back() -> None:
    prompts, blocks = agents(150, 1)
    learned = found_tokens(MarkAndPredict(), prompts, blocks)
    assert learned > 1.3 * found_tokens(LeastRecentlyUsed(), prompts, blocks)


def test_counts_follow_a_change() -> None:
    counts = ReuseCounts()
    assert counts.predict((1,))
    for _ in range(1000):
        counts.learn((1,), False)
    assert not counts.predict((1,))
    assert counts.predict((2,))
    for _ in range(400):
        counts.learn((1,), True)
    assert counts.predict((1,))
