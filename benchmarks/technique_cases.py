"""The cases of techniques.py: each runs a technique and the plain way and gives one figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from time import perf_counter

import numpy as np
from cache_cases import CACHE_CASES
from kernel_cases import KERNEL_CASES, TEXT
from measured import ROUNDS, Measured, greedy, random_prompt, timed
from scheduler_cases import SCHEDULER_CASES

from pelton import LLM, SamplingParams
from pelton.decode.philox import uniform
from pelton.decode.sampler import draw
from pelton.spec.draft import Draft
from pelton.spec.ngram import NgramDrafter
from pelton.traffic.sharegpt import conversations, installed_file
from pelton.types import I32

F32 = np.typing.NDArray[np.float32]


def longest_gap(llm: LLM) -> float:
    """The longest step, in seconds, of four decoding sequences that a prompt of 1,500 tokens joins."""
    states = [llm.requests.add(random_prompt(llm, 8, seed), greedy(40)) for seed in range(4)]
    llm.requests.step()
    states.append(llm.requests.add(random_prompt(llm, 1500), greedy(1)))
    gap = 0.0
    while not states[-1].finished:
        start = perf_counter()
        llm.requests.step()
        gap = max(gap, perf_counter() - start)
    for state in states:
        llm.requests.abort(state)
    return gap


def stall_free(model: str) -> Measured:
    gaps: dict[int, list[float]] = {64: [], 2048: []}
    for _ in range(ROUNDS):
        for budget, found in gaps.items():
            with LLM(
                model, drafts="off", prefix_cache=False, max_num_batched_tokens=budget, context_length=2048
            ) as llm:
                found.append(longest_gap(llm))
    ratio = median(gaps[2048]) / median(gaps[64])
    return Measured(
        "longest gap between tokens while a prompt joins", ratio, "times shorter", "the prompt in one step"
    )


def continuous_batching(model: str) -> Measured:
    """24 requests of 8 to 96 tokens, 8 at a time: joining at every step, or waiting for the slowest of 8."""
    lengths = np.random.default_rng(0).integers(8, 97, 24).tolist()
    with LLM(model, drafts="off", prefix_cache=False, max_num_seqs=8, context_length=512) as llm:
        prompts = [random_prompt(llm, 16, seed) for seed in range(len(lengths))]
        params = [greedy(length) for length in lengths]

        def run(groups: Sequence[range]) -> float:
            start = perf_counter()
            for group in groups:
                llm.generate([prompts[i] for i in group], [params[i] for i in group])
            return perf_counter() - start

        joined, static = [], []
        for _ in range(ROUNDS):
            joined.append(run([range(24)]))
            static.append(run([range(first, first + 8) for first in (0, 8, 16)]))
    return Measured(
        "throughput of requests of many lengths",
        median(static) / median(joined),
        "times",
        "batches of 8 that end together",
    )


def multi_step(model: str) -> Measured:
    """One greedy sequence, 128 tokens at a time: a pass in each engine step, or several."""
    with LLM(model, drafts="off", prefix_cache=False, context_length=512) as llm:
        prompt = random_prompt(llm, 8)

        def run(patience: float) -> float:
            state = llm.requests.add(prompt, greedy(128))
            start = perf_counter()
            while not state.finished:
                llm.requests.step(patience)
            return perf_counter() - start

        run(0.0)
        once, many = [], []
        for _ in range(5 * ROUNDS):
            once.append(run(0.0))
            many.append(run(0.25))
    return Measured(
        "decoding speed of one sequence", median(once) / median(many), "times", "a step for each pass"
    )


def paged_kv(model: str) -> Measured:
    """Blocks in use by eight continuations of one 1,024-token prompt, shared against separate."""
    with LLM(model, drafts="off", prefix_cache=False, context_length=2048) as llm:
        prompt = random_prompt(llm, 1024)

        def blocks(n: int, requests: int) -> int:
            params = SamplingParams(n=n, seed=0, max_tokens=8, ignore_eos=True)
            states = [llm.requests.add(prompt, params) for _ in range(requests)]
            used = 0
            while not all(state.finished for state in states):
                llm.requests.step()
                used = max(used, llm.engine.pool.num_blocks - llm.engine.pool.num_free)
            return used

        shared, separate = blocks(8, 1), blocks(1, 8)
    return Measured(
        "KV memory of 8 continuations of one prompt", separate / shared, "times less", "a copy for each"
    )


def counter_sampling(model: str) -> Measured:
    logits = np.random.default_rng(0).standard_normal(49_152).astype(np.float32) * 3

    def each(action: Callable[[int], object]) -> float:
        times = []
        for position in range(200):
            start = perf_counter()
            action(position)
            times.append(perf_counter() - start)
        return median(times)

    number = each(lambda position: uniform(7, position))
    whole = each(lambda position: draw(logits, uniform(7, position)))
    return Measured(
        "time of a random number", number * 1e6, "us", f"{whole * 1e6:.0f} us to sample one of 49,152 tokens"
    )


@dataclass(frozen=True)
class Oracle:
    """Drafts what plain decoding said: as right as a drafter can be."""

    text: tuple[int, ...]
    length: int
    shortest: int = 0

    def propose(self, tokens: I32, most: int) -> Draft | None:
        known = self.text[len(tokens) : len(tokens) + min(most, self.length)]
        return Draft(known) if known else None


def coupled(model: str) -> Measured:
    """Speed at temperature 1 with drafts of four right tokens: what verification leaves of the gain."""
    params = SamplingParams(temperature=1.0, seed=5, max_tokens=64, ignore_eos=True)
    plain, drafted = [], []
    with LLM(model, drafts="off", prefix_cache=False, context_length=512) as llm:
        prompt = llm.encode(TEXT)
        _, text = timed(llm, prompt, params)
        oracle = Oracle((*prompt, *text), 4)
        with LLM(model, prefix_cache=False, context_length=512, drafter=oracle) as other:
            for _ in range(ROUNDS):
                plain.append(timed(llm, prompt, params)[0])
                seconds, again = timed(other, prompt, params)
                drafted.append(seconds)
                assert again == text, "drafts changed the text"
    return Measured(
        "speed with drafts of 4 right tokens at temperature 1",
        median(plain) / median(drafted),
        "times",
        "plain decoding, the same text",
    )


def ngram(model: str) -> Measured:
    """A text to repeat, which is what prompt lookup is for."""
    request = [{"role": "user", "content": f"Repeat this text word for word: {TEXT}"}]
    plain, drafted = [], []
    with (
        LLM(model, drafts="off", prefix_cache=False, context_length=1024) as llm,
        LLM(model, prefix_cache=False, context_length=1024, drafter=NgramDrafter()) as other,
    ):
        prompt = llm.requests.render(request)
        for _ in range(ROUNDS):
            plain.append(timed(llm, prompt, greedy(64)))
            drafted.append(timed(other, prompt, greedy(64)))
            assert plain[-1][1] == drafted[-1][1], "drafts changed the text"
    ratio = median(seconds for seconds, _ in plain) / median(seconds for seconds, _ in drafted)
    return Measured(
        "speed of repeating a text",
        ratio,
        "times",
        "plain decoding, the same text",
    )


def goodput(model: str) -> Measured:
    """Greedy answers to ShareGPT questions, one after another, as `LLM` drafts by itself."""
    asked = (turns[0] for turns in conversations(installed_file()) if len(turns) > 1)
    plain, drafted = 0.0, 0.0
    with (
        LLM(model, drafts="off", prefix_cache=False, context_length=1024) as llm,
        LLM(model, prefix_cache=False, context_length=1024) as other,
    ):
        for question in islice((text for text in asked if 20 < len(text) < 1500), 12):
            prompt = llm.requests.render([{"role": "user", "content": question}])
            runs = [(timed(llm, prompt, greedy(192)), timed(other, prompt, greedy(192))) for _ in range(2)]
            assert all(one[1] == two[1] for one, two in runs), "drafts changed the text"
            plain += min(one[0] for one, _ in runs)
            drafted += min(two[0] for _, two in runs)
    return Measured(
        "speed of answers of 192 tokens to 12 ShareGPT questions",
        plain / drafted,
        "times",
        "plain decoding, the same texts",
    )


CASES: Mapping[str, Callable[[str], Measured]] = {
    "stall-free-chunked-prefill": stall_free,
    "continuous-batching": continuous_batching,
    "multi-step-scheduling": multi_step,
    "paged-kv": paged_kv,
    **KERNEL_CASES,
    "counter-based-sampling": counter_sampling,
    "coupled-verification": coupled,
    "ngram-drafts": ngram,
    "goodput-drafts": goodput,
    **CACHE_CASES,
    **SCHEDULER_CASES,
}
