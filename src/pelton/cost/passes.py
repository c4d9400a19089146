"""Times forward passes of an engine's executor: no tokenizing, no sampling, no scheduler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from time import perf_counter

import numpy as np

from ..batch import make_batch
from ..engine import Engine
from ..errors import ConfigError
from ..kv import BlockTable
from ..quant import Format
from ..types import BLOCK_SIZE, I32, Span
from .machine import Machine
from .roofline import bound_of, pass_load, step_costs

_MOST_TOKENS = 1 << 20
_COUNTS = re.compile(r"\d{1,7}(?:,\d{1,7}){0,31}")


@dataclass(frozen=True)
class PassTest:
    """llama-bench's tests: a prompt of `tokens` at once ("pp512"), or `tokens` one by one ("tg128").

    `depth` positions are computed before and are not timed ("tg128 @ d4096").
    """

    kind: str
    tokens: int
    depth: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("pp", "tg"):
            raise ConfigError("is neither pp nor tg", field="test", value=self.kind)
        if not 1 <= self.tokens <= _MOST_TOKENS or not 0 <= self.depth <= _MOST_TOKENS:
            raise ConfigError(f"must be at most {_MOST_TOKENS} tokens", field="test", value=str(self))

    def __str__(self) -> str:
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")

    @property
    def positions(self) -> int:
        return self.depth + self.tokens


@dataclass(frozen=True)
class PassResult:
    """Tokens a second of each repetition, and what the machine allows at most."""

    test: PassTest
    samples: tuple[float, ...]
    ceiling: float
    limit: str

    @property
    def mean(self) -> float:
        return fmean(self.samples)

    @property
    def deviation(self) -> float:
        return stdev(self.samples) if len(self.samples) > 1 else 0.0

    @property
    def share(self) -> float:
        return self.mean / self.ceiling


def parse_counts(text: str, field: str) -> tuple[int, ...]:
    """`512,1024` -> (512, 1024). Raises ConfigError for anything else."""
    if not _COUNTS.fullmatch(text):
        raise ConfigError("must be whole numbers, separated by commas", field=field, value=text)
    return tuple(int(part) for part in text.split(","))


class PassTimer:
    """Runs one sequence of random tokens in the engine's own KV arena. The engine must be idle."""

    def __init__(self, engine: Engine, chunk: int, seed: int = 0) -> None:
        self._engine = engine
        self._chunk = chunk
        self._tokens = np.random.Generator(np.random.Philox(seed))
        self._table = BlockTable(engine.pool, engine.kv.copy_block)
        self._computed = 0

    def seconds(self, test: PassTest) -> float:
        """Run a test once. Raises ConfigError if the context is too short for it."""
        if test.positions > self._engine.context_length:
            raise ConfigError(
                f"needs {test.positions} positions, the context has {self._engine.context_length};"
                " raise --ctx-size or --kv-memory",
                field="test",
                value=str(test),
            )
        if self._computed < test.depth:
            self._run(test.depth - self._computed, self._chunk)
        self._computed = test.depth  # positions beyond are overwritten: a roll-back is a change of length
        start = perf_counter()
        self._run(test.tokens, self._chunk if test.kind == "pp" else 1)
        return perf_counter() - start

    def close(self) -> None:
        """Give the KV blocks back."""
        self._table.release()

    def _run(self, count: int, chunk: int) -> None:
        end = self._computed + count
        vocab = self._engine.executor.plan.vocab_size
        tokens = self._tokens.integers(0, vocab, count, dtype=np.int32)
        self._table.prepare(self._computed, end)
        for first in range(0, count, chunk):
            part = tokens[first : first + chunk]
            is_last = first + len(part) == count or chunk == 1
            self._pass(part, is_last)
        assert self._computed == end

    def _pass(self, tokens: I32, wants_logits: bool) -> None:
        outputs = np.array([len(tokens) - 1] if wants_logits else [], dtype=np.int32)
        span = Span(0, self._computed, tokens, self._table.array, outputs)
        forward = self._engine.executor.begin(make_batch([span]), self._engine.kv)
        forward.advance()
        if wants_logits:
            forward.logits()
        self._computed += len(tokens)


def ceiling(
    engine: Engine, formats: Mapping[str, Format], machine: Machine, test: PassTest, chunk: int
) -> tuple[float, str]:
    """Tokens a second that no implementation of the plan can exceed on the machine, and what limits them."""
    executor = engine.executor
    element = engine.kv.layout.block_bytes / (BLOCK_SIZE * executor.plan.kv.elements_per_token)

    def bound(rows: int, depth: int) -> tuple[float, str]:
        load = pass_load(
            rows=rows, depth=depth, sequences=1, kv_bytes=element, weight_bytes=executor.weight_bytes
        )
        found = bound_of(step_costs(executor.plan, load, formats), machine)
        return found.seconds, found.limit

    if test.kind == "tg":  # the cost is linear in depth, so the middle step is the mean
        seconds, limit = bound(1, test.depth + test.tokens // 2)
        return 1.0 / seconds, limit
    starts = range(0, test.tokens, chunk)
    bounds = [bound(min(chunk, test.tokens - first), test.depth + first) for first in starts]
    return test.tokens / sum(seconds for seconds, _ in bounds), bounds[-1][1]
