"""What every worker speaks: one JSON object a line, requests on stdin, replies on stdout.

A worker is run by the interpreter of its engine, loads one model once, and then does what it is asked:

    {"verb": "generate", "prompts": [[1, 2, 3]], "new_tokens": 4}
        -> {"seconds": 0.5, "first": 0.1, "tokens_at_first": 1, "tokens": 4}
    {"verb": "score", "windows": [[1, 2, 3]]} -> {"nll": 7.5, "tokens": 2}

Unasked, its first line is {"version": "...", "load_seconds": 1.5}: from the start of the worker to the
first token of a first prompt. What an engine cannot do is answered with {"hole": "why"}; the worker goes
on. End of stdin ends it. Standard library only, since every engine's interpreter runs this file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, TextIO

START = time.perf_counter()
_FIRST_PROMPT = [504, 3575, 282, 4649]


class CannotDo(Exception):
    """The engine has no way to do this test; the message says why."""


@dataclass(frozen=True)
class Generated:
    """Times of one `generate` in seconds from its start.

    first: until every prompt had one token, `tokens_at_first` in all. seconds: until the last of `tokens`.
    """

    seconds: float
    first: float
    tokens_at_first: int
    tokens: int

    def __post_init__(self) -> None:
        if not 0.0 < self.first <= self.seconds or not 0 < self.tokens_at_first <= self.tokens:
            raise ValueError(f"these are no times of a run: {self}")


class Stopwatch:
    """Made when a run starts, told of every token by the number of its prompt."""

    def __init__(self, prompts: int) -> None:
        self._waiting = set(range(prompts))
        self._tokens = 0
        self._first = (0.0, 0)
        self._start = time.perf_counter()

    def token(self, prompt: int, count: int = 1) -> None:
        self._tokens += count
        if prompt in self._waiting:
            self._waiting.discard(prompt)
            if not self._waiting:
                self._first = (time.perf_counter() - self._start, self._tokens)

    def stop(self, expected: int) -> Generated:
        """Raises RuntimeError if the engine did not generate exactly the `expected` tokens."""
        seconds = time.perf_counter() - self._start
        if self._waiting or self._tokens != expected:
            raise RuntimeError(f"{self._tokens} tokens came instead of {expected}")
        return Generated(seconds, *self._first, self._tokens)


class Engine(Protocol):
    """One loaded model. Token ids in, greedy, past every end token, no text made."""

    version: str

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Generated: ...

    def score(self, windows: Sequence[Sequence[int]]) -> float:
        """Negative log-likelihood in nats, summed over every token but each window's first."""
        ...


def serve(load: Callable[[str, int], Engine]) -> None:
    """Run a worker: `python worker.py MODEL THREADS`. Engines print; only replies reach the real stdout."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        engine = load(sys.argv[1], int(sys.argv[2]))
        engine.generate([_FIRST_PROMPT], 1)
    except Exception as error:
        _reply(replies, {"hole": _told(error)})
        return
    _reply(replies, {"version": engine.version, "load_seconds": time.perf_counter() - START})
    for request in _requests():
        try:
            answer = _answer(engine, request)
        except Exception as error:
            answer = {"hole": _told(error)}
        _reply(replies, answer)


def _requests() -> Iterator[dict[str, object]]:
    for line in sys.stdin:
        yield json.loads(line)


def _answer(engine: Engine, request: dict[str, object]) -> dict[str, object]:
    if request["verb"] == "generate":
        return asdict(engine.generate(_lists(request["prompts"]), int(str(request["new_tokens"]))))
    if request["verb"] == "score":
        windows = _lists(request["windows"])
        return {"nll": engine.score(windows), "tokens": sum(len(window) - 1 for window in windows)}
    raise CannotDo(f"no verb {request['verb']}")


def _lists(value: object) -> list[list[int]]:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        raise CannotDo("token ids must be lists of lists")
    return value


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, CannotDo) else f"{type(error).__name__}: {text}"


def _reply(stream: TextIO, answer: dict[str, object]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()
