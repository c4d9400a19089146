"""What the prefix cache saves: a conversation turn by turn, a restart, agents, and eviction policies.

    python benchmarks/prefix_cache.py [--model smollm2-135m] [--out docs/measurements/prefix_cache.csv]

Runs with and without the cache alternate, and their texts must be equal token for token.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from cache_cases import agent_trace, hit_rate
from measured import ROUNDS, first_token_seconds, greedy, random_prompt

from pelton import LLM
from pelton.cost.advice import observe
from pelton.kv import (
    BlockPool,
    BlockTable,
    EvictionPolicy,
    LeastRecentlyUsed,
    MarkAndPredict,
    Prefix,
    PrefixCache,
)
from pelton.kv.reuse import Traits
from pelton.types import BLOCK_SIZE

TURNS, FIRST_TURN, ANSWER, QUESTION = 4, 2000, 32, 30
COLUMNS = ("experiment", "case", "metric", "value", "unit", "date", "machine")


@dataclass(frozen=True)
class Row:
    experiment: str
    case: str
    metric: str
    value: float
    unit: str


def conversation(model: str) -> Iterator[Row]:
    """Time to first token of every turn, cached and not, and how much was found."""
    seconds: dict[tuple[bool, int], list[float]] = {}
    found: dict[int, int] = {}
    with (
        LLM(model, context_length=4096) as warm,
        LLM(model, context_length=4096, prefix_cache=False) as bare,
    ):
        for seed in range(ROUNDS):
            said = random_prompt(warm, FIRST_TURN, seed)
            for turn in range(TURNS):
                seconds.setdefault((False, turn), []).append(first_token_seconds(bare, said))
                seconds.setdefault((True, turn), []).append(first_token_seconds(warm, said))
                (answer,), (plain,) = (llm.generate([said], greedy(ANSWER)) for llm in (warm, bare))
                assert answer.outputs[0].token_ids == plain.outputs[0].token_ids, "the cache changed the text"
                found[turn] = answer.num_cached_tokens
                said = [*said, *answer.outputs[0].token_ids, *random_prompt(warm, QUESTION, 100 + turn)]
    first = median(seconds[True, 0])
    for turn in range(TURNS):
        for cached in (False, True):
            case = f"turn {turn + 1}, {'cached' if cached else 'computed'}"
            yield Row("conversation", case, "time to first token", 1000 * median(seconds[cached, turn]), "ms")
        yield Row(
            "conversation",
            f"turn {turn + 1}",
            "shorter than turn 1",
            first / median(seconds[True, turn]),
            "times",
        )


def restart(model: str) -> Iterator[Row]:
    """The first turn in a new process's place: an engine over the folder that another left."""
    cold, warm, loads = [], [], []
    for seed in range(ROUNDS):
        with TemporaryDirectory() as folder:
            texts = []
            for times in (cold, warm):
                start = perf_counter()
                with LLM(model, context_length=4096, kv_cache_dir=folder) as llm:
                    loads.append(perf_counter() - start)
                    llm.generate([[1]], greedy(1))
                    said = random_prompt(llm, FIRST_TURN, seed)
                    times.append(first_token_seconds(llm, said))
                    texts.append(llm.generate([said], greedy(ANSWER))[0].outputs[0].token_ids)
            assert texts[0] == texts[1], "the disk tier changed the text"
            size = sum(file.stat().st_size for file in Path(folder).glob("*.kv"))
    yield Row("restart", "nothing on disk", "time to first token", 1000 * median(cold), "ms")
    yield Row("restart", "prefix on disk", "time to first token", 1000 * median(warm), "ms")
    yield Row("restart", "prefix on disk", "shorter than without", median(cold) / median(warm), "times")
    yield Row("restart", "prefix on disk", "folder", size / 1e6, "MB")


def agents(model: str) -> Iterator[Row]:
    """Four agents of eight calls each, all with one long instruction: every call repeats what was said."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for cached in (True, False):
            with LLM(model, context_length=4096, prefix_cache=cached) as llm:
                instruction = random_prompt(llm, 600, 0)
                talks = [[*instruction, *random_prompt(llm, 40, 1 + agent)] for agent in range(4)]
                start = perf_counter()
                for _ in range(8):
                    outputs = llm.generate(talks, greedy(24))
                    for talk, output in zip(talks, outputs, strict=True):
                        talk += [*output.outputs[0].token_ids, *random_prompt(llm, 20, len(talk))]
                seconds[cached].append(perf_counter() - start)
                if cached and llm.engine.prefixes is not None:
                    rate = llm.engine.prefixes.stats.hit_rate
    yield Row("agents", "4 agents, 8 calls", "prompt tokens found", 100 * rate, "%")
    yield Row(
        "agents", "4 agents, 8 calls", "time saved", median(seconds[False]) / median(seconds[True]), "times"
    )


def policies(model: str) -> Iterator[Row]:
    """Hit rates on a trace of prompts, no model needed, by the size of the cache."""
    prompts = agent_trace(400, 0)
    makers: dict[str, Callable[[], EvictionPolicy]] = {"lru": LeastRecentlyUsed, "predicted": MarkAndPredict}
    for blocks in (64, 128, 256, 512):
        for name, make in makers.items():
            rate = 100 * hit_rate(make(), prompts, blocks)
            yield Row("policies", f"{name}, {blocks} blocks", "prompt tokens found", rate, "%")


class Noisy:
    """Right bits, each turned round with a probability."""

    def __init__(self, bits: Sequence[bool], error: float) -> None:
        self.bits = np.asarray(bits) ^ (np.random.default_rng(1).random(len(bits)) < error)
        self.at = -1

    def predict(self, traits: Traits) -> bool:
        return bool(self.bits[self.at])

    def learn(self, traits: Traits, reused: bool) -> None:
        pass


def misses(policy: EvictionPolicy, trace: Sequence[int], size: int, noisy: Noisy | None = None) -> int:
    """A trace of pages, each a prompt of one block with a salt of its own."""
    pool, missed = BlockPool(size), 0
    cache = PrefixCache(pool, policy)
    for at, page in enumerate(trace):
        if noisy is not None:
            noisy.at = at
        tokens = np.full(BLOCK_SIZE, page, np.int32)
        table = BlockTable(pool, lambda source, target: None)
        prefix = Prefix(cache, table, str(page))
        missed += prefix.extend(tokens, 0, BLOCK_SIZE) == 0
        table.prepare(0, BLOCK_SIZE)
        prefix.finish(tokens, BLOCK_SIZE)
        table.release()
    return missed


def optimum(trace: Sequence[int], size: int) -> int:
    """Belady's misses: the page whose next request is farthest away goes."""
    following, last = [len(trace)] * len(trace), dict[int, int]()
    for at in range(len(trace) - 1, -1, -1):
        following[at] = last.get(trace[at], len(trace))
        last[trace[at]] = at
    held, missed = dict[int, int](), 0
    for at, page in enumerate(trace):
        if page not in held:
            missed += 1
            if len(held) == size:
                del held[max(held, key=lambda other: held[other])]
        held[page] = following[at]
    return missed


def right_bits(trace: Sequence[int], size: int) -> list[bool]:
    phases, seen, phase = [], set[int](), 0
    for page in trace:
        if len(seen | {page}) > size:
            seen, phase = set(), phase + 1
        seen.add(page)
        phases.append(phase)
    wanted = set(zip(phases, trace, strict=True))
    return [(phase + 1, page) in wanted for phase, page in zip(phases, trace, strict=True)]


def bit_errors(model: str) -> Iterator[Row]:
    """Misses relative to the optimum on pages by Zipf's law, with bits that are wrong more and more often."""
    random, size = np.random.default_rng(0), 64
    trace = [int(page) for page in np.minimum(random.zipf(1.2, 20000), 2000)]
    best = optimum(trace, size)
    yield Row(
        "bit errors",
        "lru",
        "misses against the optimum",
        misses(LeastRecentlyUsed(), trace, size) / best,
        "times",
    )
    for error in (0.0, 0.1, 0.25, 0.5, 1.0):
        noisy = Noisy(right_bits(trace, size), error)
        ratio = misses(MarkAndPredict(noisy), trace, size, noisy) / best
        yield Row("bit errors", f"{error:.0%} of bits wrong", "misses against the optimum", ratio, "times")


EXPERIMENTS = {
    function.__name__: function for function in (conversation, restart, agents, policies, bit_errors)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--only", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--out", type=Path, default=Path("docs/measurements/prefix_cache.csv"))
    options = parser.parse_args()
    around = observe(len(os.sched_getaffinity(0)))
    machine = f"{around.processor}, {around.threads} threads, {around.isa}, load {around.load:.1f}"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name in options.only:
            for row in EXPERIMENTS[name](options.model):
                cells = (row.experiment, row.case, row.metric, f"{row.value:.4g}", row.unit)
                writer.writerow((*cells, date.today().isoformat(), machine))
                file.flush()
                print(", ".join(cells))


if __name__ == "__main__":
    main()
