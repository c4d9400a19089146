"""What every executor offers: begin a forward pass over a batch, advance it step by step, read results."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..kv import KVArena
from ..plan import Plan
from ..types import I32, Batch

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Until:
    """After which pass no other runs, however many were allowed.

    One in which a row found one of `ends`, or nothing; and one after which the last `repeated` tokens of one
    of `texts` (a row's tokens up to the first pass's own, by row) stand in it earlier, too.
    """

    ends: Collection[int] = ()
    texts: Mapping[int, I32] = field(default_factory=dict)
    repeated: int = 0

    def __post_init__(self) -> None:
        assert self.repeated > 0 or not self.texts


class Forward(Protocol):
    """One pass of a plan over one batch. Stops and resumes at any step: a stretch is a segment."""

    def advance(self, end: int | None = None) -> None:
        """Run the steps up to (not including) `end` of the plan given to the executor; None: all."""

    def read(self, value: int) -> F32:
        """A copy of a value that is live at the current step, float32 [rows, width]."""

    def write(self, value: int, array: F32) -> None:
        """Replace a value that is live at the current step."""

    def logits(self) -> F32:
        """float32 [R, V] after the last step; valid until the next forward pass begins. Not for a batch that
        asked for the greatest only."""

    def greatest(self) -> list[int]:
        """Of a batch that asked for no more (`only_greatest`), after the last step: the first index of the
        greatest of each row of logits, -1 where one is NaN or none is above -infinity."""

    def feed_back(self, passes: int, until: Until) -> list[list[int]]:
        """Instead of advancing, for a batch of one row a span that asked for the greatest only: run all of
        this pass, and then so many in all, each over the tokens that the one before found, at their next
        positions, but no other after what `until` speaks of. What `greatest` is after each, [passes that
        ran][R]. ValueError where a table has no slot for a position."""

    @property
    def batch(self) -> Batch: ...

    @property
    def kv(self) -> KVArena: ...

    @property
    def taps(self) -> Mapping[str, F32]:
        """What the plan's taps copied out so far."""


class Executor(Protocol):
    """Runs one plan. One forward pass at a time: beginning another ends the one before."""

    @property
    def plan(self) -> Plan:
        """The plan whose step numbers and value ids `Forward` takes."""

    @property
    def weight_bytes(self) -> Mapping[str, int]:
        """Bytes that each weight occupies as kept by this executor."""

    def begin(self, batch: Batch, kv: KVArena) -> Forward: ...

    def close(self) -> None:
        """Stop threads and free memory; further use is an error."""
