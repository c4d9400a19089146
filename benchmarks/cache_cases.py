"""The cases of techniques.py about the prefix cache; prefix_cache.py has them in more detail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from measured import ROUNDS, Measured, first_token_seconds, greedy, random_prompt

from pelton import LLM
from pelton.kv import (
    BlockPool,
    BlockTable,
    EvictionPolicy,
    LeastRecentlyUsed,
    MarkAndPredict,
    Prefix,
    PrefixCache,
)
from pelton.types import BLOCK_SIZE

CONVERSATION = 2000
NEW_TOKENS = 30
WORKING_SET_ROUNDS = 10


def next_turn(model: str) -> Measured:
    """A conversation of 2,000 tokens gets an answer of 16 and a question of 30 more."""
    first, second = [], []
    with LLM(model, drafts="off", context_length=4096) as llm:
        for seed in range(ROUNDS):
            said = random_prompt(llm, CONVERSATION, seed)
            first.append(first_token_seconds(llm, said))
            (output,) = llm.generate([said], greedy(16))
            said += [*output.outputs[0].token_ids, *random_prompt(llm, NEW_TOKENS, 100 + seed)]
            second.append(first_token_seconds(llm, said))
    return Measured(
        "time to the first token of a 2,000-token conversation's next turn",
        median(first) / median(second),
        "times shorter",
        "the conversation's first turn",
    )


def restarted(model: str) -> Measured:
    """The same conversation after a restart, from the disk tier's folder."""
    cold, warm = [], []
    for seed in range(ROUNDS):
        with TemporaryDirectory() as folder:
            for times in (cold, warm):
                with LLM(model, drafts="off", context_length=4096, kv_cache_dir=folder) as llm:
                    llm.generate([[1]], greedy(1))
                    times.append(first_token_seconds(llm, random_prompt(llm, CONVERSATION, seed)))
    return Measured(
        "time to the first token of a 2,000-token prompt after a restart",
        median(cold) / median(warm),
        "times shorter",
        "without the folder",
    )


def working_set(model: str) -> Measured:
    """Two engines take turns: one may use idle blocks again, the other takes new memory for every prompt."""
    with (
        LLM(model, drafts="off", context_length=2048) as small,
        LLM(model, drafts="off", context_length=2048) as growing,
    ):
        cache = growing.engine.prefixes
        assert cache is not None
        cache.working_set.window = growing.engine.pool.num_blocks
        seconds: dict[LLM, list[float]] = {small: [], growing: []}
        for number in range(WORKING_SET_ROUNDS):
            for llm in seconds:
                prompts = [random_prompt(llm, 16, 100 * number + i) for i in range(32)]
                began = perf_counter()
                llm.generate(prompts, greedy(64))
                seconds[llm].append(perf_counter() - began)
        memory = [
            llm.engine.pool.num_touched * llm.engine.kv.layout.block_bytes >> 20 for llm in (small, growing)
        ]
    ratio = median(seconds[growing][2:]) / median(seconds[small][2:])
    return Measured(
        f"speed of 32 new prompts at a time, {WORKING_SET_ROUNDS} times; {memory[0]} MiB of keys and values",
        ratio,
        "times",
        f"the whole pool fills: {memory[1]} MiB",
    )


def agent_trace(rounds: int, seed: int) -> list[list[int]]:
    """Prompts of agents that share few long instructions, among requests that never come back."""
    random = np.random.default_rng(seed)
    shared = [random.integers(0, 1000, 12 * BLOCK_SIZE).tolist() for _ in range(8)]
    prompts = []
    for _ in range(rounds):
        prompts.append(shared[random.integers(8)] + random.integers(0, 1000, 70).tolist())
        prompts += [random.integers(0, 1000, int(random.integers(100, 700))).tolist() for _ in range(2)]
    return prompts


def hit_rate(policy: EvictionPolicy, prompts: list[list[int]], blocks: int) -> float:
    """Share of prompt tokens found in a cache of so many blocks, one prompt after the other."""
    pool = BlockPool(blocks)
    cache = PrefixCache(pool, policy)
    for prompt in prompts:
        tokens = np.array(prompt, np.int32)
        table = BlockTable(pool, lambda source, target: None)
        prefix = Prefix(cache, table, "")
        prefix.count(len(prompt), prefix.extend(tokens, 0, len(tokens) - 1))
        table.prepare(0, len(tokens))
        prefix.finish(tokens, len(tokens))
        table.release()
    return cache.stats.hit_rate


def one_bit(model: str) -> Measured:
    """Needs no model: the real cache on a trace of prompts."""
    prompts = agent_trace(400, 0)
    learned, recent = hit_rate(MarkAndPredict(), prompts, 128), hit_rate(LeastRecentlyUsed(), prompts, 128)
    return Measured(
        "prompt tokens found in a cache of 128 blocks, agents among other requests",
        100 * learned,
        "%",
        f"{100 * recent:.1f} % with the least recently used evicted",
    )


CACHE_CASES: Mapping[str, Callable[[str], Measured]] = {
    "prefix-cache": next_turn,
    "prefix-cache-on-disk": restarted,
    "working-set": working_set,
    "one-bit-eviction": one_bit,
}
