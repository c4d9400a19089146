"""Traces: who asks what and when. Read from a file, or made from real conversations and made-up agents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import ConfigError, RequestError
from ..terms import ORDINARY, RequestTerms
from ..traffic.sharegpt import conversations, installed_file
from ..types import I32

VOCAB = 32_000
"""Made-up token ids lie below; a real model's vocabulary may be smaller (`Trace.below`)."""
MOST_TOKENS = 1 << 20
MOST_CALLS = 1_000_000
_MOST_FILE_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Call:
    """One request. `arrival` in seconds; after a call `after`, it is counted from that call's end.

    prompt: int32 [tokens]. answer: what a simulated model says, int32 [tokens]; its length is known to no
    scheduler. most: the most it may say.
    """

    arrival: float
    prompt: I32
    answer: I32
    most: int
    terms: RequestTerms = ORDINARY
    after: int | None = None

    def __post_init__(self) -> None:
        assert len(self.prompt)
        assert 0 < len(self.answer) <= self.most


@dataclass(frozen=True)
class Trace:
    """Calls in any order; `after` counts from 0 among them."""

    calls: Sequence[Call]
    name: str = "trace"

    @property
    def tenants(self) -> list[str]:
        return sorted({call.terms.tenant for call in self.calls})

    def below(self, vocab: int) -> Trace:
        """The same with token ids that a smaller vocabulary has."""
        calls = [
            Call(c.arrival, c.prompt % np.int32(vocab), c.answer, c.most, c.terms, c.after)
            for c in self.calls
        ]
        return Trace(calls, self.name)


@dataclass(frozen=True, kw_only=True)
class TraceShape:
    """How a made-up trace looks. rate: calls (agent: programs) a second. most: what each call allows."""

    calls: int = 200
    rate: float = 4.0
    seed: int = 0
    most: int = 1024
    tenants: int = 2
    deadlines: bool = False
    longest: int = 3000
    beginning: int = field(default=96)

    def __post_init__(self) -> None:
        for name, value, most in (
            ("calls", self.calls, MOST_CALLS),
            ("most", self.most, MOST_TOKENS),
            ("tenants", self.tenants, 4096),
            ("longest", self.longest, MOST_TOKENS),
        ):
            if not 1 <= value <= most:
                raise ConfigError(f"must be from 1 to {most}", field=name, value=value)
        if not 0 < self.rate < 1e9:
            raise ConfigError("must be above 0", field="rate", value=self.rate)


def sharegpt_trace(shape: TraceShape, file: Path | None = None) -> Trace:
    """First messages of real conversations with the lengths of their real answers, as a Poisson process.

    A word is a token or two by its hash, so that likeness of prompts survives without a tokenizer. Half of
    all calls are the first tenant's, the others share the rest.
    """
    random = np.random.Generator(np.random.Philox(shape.seed))
    texts = ((t[0], t[1]) for t in conversations(file or installed_file()) if len(t) > 1)
    pairs = ((tokens_of(a), tokens_of(b)) for a, b in texts)
    fitting = (
        (prompt, answer[: shape.most])
        for prompt, answer in pairs
        if 4 <= len(prompt) <= shape.longest and len(answer) >= 1
    )
    found = list(islice(fitting, min(shape.calls, 20_000)))
    if not found:
        raise ConfigError("holds no conversation", field="trace", value=str(file))
    moments = np.cumsum(random.exponential(1.0 / shape.rate, shape.calls))
    calls = []
    for index, moment in enumerate(moments.tolist()):
        prompt, answer = found[index % len(found)]
        heavy = random.random() < 0.5 or shape.tenants == 1
        tenant = 0 if heavy else int(random.integers(1, shape.tenants))
        terms = RequestTerms(tenant=f"tenant-{tenant}", deadline=_deadline(random, shape, len(answer)))
        calls.append(Call(moment, prompt, answer, shape.most, terms))
    return Trace(calls, "sharegpt")


def agent_trace(shape: TraceShape) -> Trace:
    """Programs that call the model several times on a growing conversation, a tool's result between calls.

    Calls a program: 1 to 60, half of them at most 2, one in twenty more than 18 (log-normal, as chats, tool
    users and tree searches mix); some calls fan out into three at once. Programs begin with one of four
    system prompts.
    """
    random = np.random.Generator(np.random.Philox(shape.seed))
    beginnings = [_random_tokens(random, shape.beginning) for _ in range(4)]
    calls: list[Call] = []
    program, moment = 0, 0.0
    while len(calls) < shape.calls:
        moment += float(random.exponential(1.0 / shape.rate))
        tenant = f"tenant-{program % shape.tenants}"
        terms = RequestTerms(tenant=tenant, program=f"program-{program}")
        calls += _program(random, shape, terms, moment, len(calls), beginnings[program % 4])
        program += 1
    return Trace(calls[: shape.calls], "agent")


def _program(
    random: np.random.Generator, shape: TraceShape, terms: RequestTerms, start: float, first: int, text: I32
) -> Iterator[Call]:
    last: int | None = None
    index = first
    for _ in range(min(60, 1 + int(random.lognormal(0.5, 1.4)))):
        text = np.concatenate([text, _random_tokens(random, int(random.integers(10, 60)))])
        if len(text) > shape.longest:
            return
        width = 3 if random.random() < 0.15 else 1
        arrival = start if last is None else float(random.uniform(0.05, 0.5))
        before = last
        for _ in range(width):
            answer = _random_tokens(random, min(shape.most, 4 + int(random.exponential(60))))
            yield Call(arrival, text, answer, shape.most, terms, before)
            last, index = index, index + 1
        text = np.concatenate([text, answer])


def tokens_of(text: str) -> I32:
    """Stand-ins for a text's tokens: one for a short word, two for a long one, by the word's hash."""
    found = []
    for word in text.split()[:MOST_TOKENS]:
        value = 0
        for character in word[:24]:
            value = (value * 131 + ord(character)) & 0x7FFFFFFF
        found.append(value % VOCAB)
        if len(word) > 7:
            found.append((value * 31 + 7) % VOCAB)
    return np.array(found, dtype=np.int32)


def read_trace(path: Path, seed: int = 0) -> Trace:
    """A JSON-lines file, one call a line, with the fields of `_call`. Raises ConfigError by file and line."""
    if path.stat().st_size > _MOST_FILE_BYTES:
        raise ConfigError(f"is larger than {_MOST_FILE_BYTES} bytes", subject=path)
    random = np.random.Generator(np.random.Philox(seed))
    prefixes: dict[str, I32] = {}
    calls: list[Call] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                calls.append(_parsed(line, f"{path}:{number}", random, prefixes, len(calls)))
            if len(calls) > MOST_CALLS:
                raise ConfigError(f"holds more than {MOST_CALLS} calls", subject=path)
    if not calls:
        raise ConfigError("holds no call", subject=path)
    return Trace(calls, path.stem)


def _parsed(line: str, where: str, random: np.random.Generator, prefixes: dict[str, I32], known: int) -> Call:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError("is not JSON", subject=where) from None
    if not isinstance(record, dict):
        raise ConfigError("is not an object", subject=where)
    return _call(_Fields(record, where), random, prefixes, known)


class _Fields:
    """Checked access to the fields of one line."""

    def __init__(self, record: dict[str, object], where: str) -> None:
        self.record, self.where = record, where

    def number(self, name: str, default: float | None, low: float, high: float) -> float:
        value = self.record.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(
                f"must be a number from {low:g} to {high:g}", subject=self.where, field=name, value=value
            )
        return value

    def text(self, name: str) -> str:
        value = self.record.get(name, "")
        if not isinstance(value, str):
            raise ConfigError("must be a text", subject=self.where, field=name, value=value)
        return value


def _call(fields: _Fields, random: np.random.Generator, prefixes: dict[str, I32], known: int) -> Call:
    """arrival, output_tokens; prompt_tokens of which the first prefix_tokens are those of `prefix`;
    max_tokens, tenant, program, deadline, priority; after: an earlier call, from whose end arrival counts."""
    output = int(fields.number("output_tokens", None, 1, MOST_TOKENS))
    length = int(fields.number("prompt_tokens", None, 1, MOST_TOKENS))
    shared = int(fields.number("prefix_tokens", 0, 0, length))
    prefix = prefixes.get(fields.text("prefix"), np.zeros(0, np.int32))
    if len(prefix) < shared:
        prefix = np.concatenate([prefix, _random_tokens(random, shared - len(prefix))])
        prefixes[fields.text("prefix")] = prefix
    prompt = np.concatenate([prefix[:shared], _random_tokens(random, length - shared)])
    deadline = fields.record.get("deadline")
    after = fields.record.get("after")
    try:
        terms = RequestTerms(
            priority=int(fields.number("priority", 0, -(2**31), 2**31)),
            deadline=None if deadline is None else fields.number("deadline", None, 1e-9, 1e9),
            tenant=fields.text("tenant"),
            program=fields.text("program"),
        )
    except RequestError as error:
        raise ConfigError(error.message, subject=fields.where, field=error.field) from None
    return Call(
        float(fields.number("arrival", 0.0, 0, 1e9)),
        prompt,
        _random_tokens(random, output),
        int(fields.number("max_tokens", output, output, MOST_TOKENS)),
        terms,
        None if after is None else int(fields.number("after", None, 0, max(0, known - 1))),
    )


def _deadline(random: np.random.Generator, shape: TraceShape, length: int) -> float | None:
    """A few seconds and some more for the answer: tight for one, ample for another."""
    if not shape.deadlines:
        return None
    return float(random.uniform(0.5, 4.0) * (2.0 + 0.02 * length))


def _random_tokens(random: np.random.Generator, count: int) -> I32:
    return random.integers(0, VOCAB, count).astype(np.int32)
