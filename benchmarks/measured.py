"""What the cases of techniques.py share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from pelton import LLM, SamplingParams

ROUNDS = 3


@dataclass(frozen=True)
class Measured:
    """A figure and what it is measured against."""

    metric: str
    value: float
    unit: str
    baseline: str


def greedy(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)


def random_prompt(llm: LLM, length: int, seed: int = 0) -> list[int]:
    vocab = llm.engine.executor.plan.vocab_size
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocab, length)]


def first_token_seconds(llm: LLM, prompt: list[int]) -> float:
    """From asking to the first token, alone."""
    start = perf_counter()
    llm.generate([prompt], greedy(1))
    return perf_counter() - start


def timed(llm: LLM, prompt: Sequence[int], params: SamplingParams) -> tuple[float, list[int]]:
    """Seconds of one request alone, and its tokens."""
    start = perf_counter()
    (output,) = llm.generate([list(prompt)], params)
    return perf_counter() - start, output.outputs[0].token_ids
