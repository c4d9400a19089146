"""What clients ask: sessions of one or more turns. A new workload is a function and a row of WORKLOADS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from .sharegpt import conversations, installed_file

MOST_SESSIONS = 100_000
_TEXT = (
    "time year people way day man thing woman life child world school state family student group country"
    " problem hand part place case week company system program question work government number night point"
    " home water room mother area money story fact month lot right study book eye job word business issue"
    " side kind head house service friend father power hour game line end member law car city community"
)
_WORDS = tuple(_TEXT.split(" "))


@dataclass(frozen=True)
class Turn:
    """One request: the user's next message and the most tokens of its answer."""

    text: str
    max_tokens: int


@dataclass(frozen=True)
class Session:
    """Turns that one client asks one after another, each with the whole conversation before it."""

    name: str
    turns: tuple[Turn, ...]
    system: str | None = None

    def __post_init__(self) -> None:
        assert self.turns


@dataclass(frozen=True, kw_only=True)
class WorkloadShape:
    """How large a workload is. input_words: of a made-up message; prefix_words: of a shared beginning."""

    sessions: int = 48
    output_tokens: int = 96
    input_words: int = 64
    prefix_words: int = 600
    prefixes: int = 4
    turns: int = 6
    seed: int = 0
    file: Path | None = None

    def __post_init__(self) -> None:
        limits = {
            "sessions": (self.sessions, MOST_SESSIONS),
            "output_tokens": (self.output_tokens, 1 << 20),
            "input_words": (self.input_words, 1 << 20),
            "prefix_words": (self.prefix_words, 1 << 20),
            "prefixes": (self.prefixes, MOST_SESSIONS),
            "turns": (self.turns, 1024),
        }
        for field, (value, most) in limits.items():
            if not 1 <= value <= most:
                raise ConfigError(f"must be from 1 to {most}", field=field, value=value)
        if self.seed < 0:
            raise ConfigError("must not be negative", field="seed", value=self.seed)


def sharegpt(shape: WorkloadShape) -> Iterator[Session]:
    """First messages of real conversations, in the file's order; those of 4 to 4,000 characters."""
    texts = (turns[0] for turns in conversations(shape.file or installed_file()))
    fitting = (text for text in texts if 4 <= len(text) <= 4000)
    for number, text in enumerate(islice(fitting, shape.sessions)):
        yield Session(f"sharegpt-{number}", (Turn(text, shape.output_tokens),))


def made_up(shape: WorkloadShape) -> Iterator[Session]:
    """Messages of random common words: nothing is shared between two of them."""
    random = _generator(shape)
    for number in range(shape.sessions):
        yield Session(f"random-{number}", (Turn(_prose(random, shape.input_words), shape.output_tokens),))


def shared_prefix(shape: WorkloadShape) -> Iterator[Session]:
    """A few long system messages, each used by many short questions: what a prefix cache is for."""
    random = _generator(shape)
    prefixes = [_prose(random, shape.prefix_words) for _ in range(shape.prefixes)]
    for number in range(shape.sessions):
        turn = Turn(_prose(random, shape.input_words), shape.output_tokens)
        yield Session(f"prefix-{number}", (turn,), prefixes[number % shape.prefixes])


def agent_loop(shape: WorkloadShape) -> Iterator[Session]:
    """Agents: a system message, then turn after turn of tool results on a growing conversation."""
    random = _generator(shape)
    system = _prose(random, shape.prefix_words)
    for number in range(shape.sessions):
        turns = tuple(
            Turn(f"Result {step}: {_prose(random, shape.input_words)}", shape.output_tokens)
            for step in range(shape.turns)
        )
        yield Session(f"agent-{number}", turns, system)


def _generator(shape: WorkloadShape) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(shape.seed))


def _prose(random: np.random.Generator, words: int) -> str:
    return " ".join(_WORDS[index] for index in random.integers(0, len(_WORDS), words))


WORKLOADS: dict[str, Callable[[WorkloadShape], Iterator[Session]]] = {
    "sharegpt": sharegpt,
    "random": made_up,
    "shared-prefix": shared_prefix,
    "agent": agent_loop,
}


def make_workload(name: str, shape: WorkloadShape) -> list[Session]:
    """The sessions of a workload. Raises ConfigError for a name that there is not, or an unusable file."""
    if name not in WORKLOADS:
        raise ConfigError(f"must be one of {', '.join(WORKLOADS)}", field="workload", value=name)
    sessions = list(WORKLOADS[name](shape))
    if not sessions:
        raise ConfigError("holds no conversation", subject=shape.file, field="workload", value=name)
    return sessions
