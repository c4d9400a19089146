"""What a scheduler offers the engine, and what one step of it looks like."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .sequence import Sequence


class Planned(NamedTuple):
    """A sequence and how many of its missing rows run in this step."""

    sequence: Sequence
    rows: int


@dataclass(frozen=True)
class Schedule:
    """What runs; and sequences that cannot run at all because the KV arena is too small for them."""

    planned: list[Planned]
    refused: list[Sequence] = field(default_factory=list)


class Scheduler(Protocol):
    """Owns the queues. Every sequence added leaves through `remove` or a refusal."""

    def add(self, sequence: Sequence) -> None: ...

    @property
    def places(self) -> int:
        """How many sequences may begin to run now as far as their number goes."""

    def adopt(self, sequence: Sequence) -> None:
        """Take over a fork of a running sequence: it runs at once, its KV exists already."""

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence wherever it is; its blocks are free afterwards. Unknown ones are ignored."""

    def schedule(self) -> Schedule:
        """Pick this step's rows and prepare their KV slots; may preempt."""

    def ahead(self, planned: Seq[Planned], most: int) -> int:
        """How many passes, at most `most`, the rows just planned, each a decoding sequence's next token, may
        run before anyone is scheduled again; their KV slots are prepared."""

    def observe(self, rows: int, seconds: float) -> None:
        """What the step that was scheduled last cost: policies that estimate times learn from it."""

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold KV blocks."""

    @property
    def num_waiting(self) -> int: ...
