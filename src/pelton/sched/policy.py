"""What a scheduling policy decides: an order. Everything else is the same for all (see budget.py)."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol

from ..types import BLOCK_SIZE
from .protocol import Planned
from .sequence import Sequence

Rank = tuple[float, ...]
"""Compared from the left; the lowest runs first and is preempted last. Equal ones go by sequence id."""


class Policy(Protocol):
    """An order of sequences, which may change as they run. No policy can change a text.

    preemptive: a waiting sequence of a better rank takes the place of a running one; without it, running
    ones keep their place until KV memory runs out. restless: ranks change while a sequence waits.
    tries: how many waiting sequences, best first, are looked at for one that fits the free memory.
    by_age: one of so many starts goes to who has waited longest, so that nobody starves; 0: none.
    """

    preemptive: bool
    restless: bool
    tries: int
    by_age: int

    def added(self, sequence: Sequence, now: float) -> None:
        """A sequence joined; called once for each."""

    def rank(self, sequence: Sequence, now: float) -> Rank:
        """Its place in the order, at a time in seconds of the scheduler's clock."""

    def slots(self, sequence: Sequence) -> int | None:
        """KV slots to set aside when it starts, at least all its tokens and one; None: not in this step."""

    def ran(self, planned: Seq[Planned], now: float) -> None:
        """What this step runs."""

    def removed(self, sequence: Sequence, now: float) -> None:
        """A sequence left, finished or not; called once for each that was added."""


def roomy_slots(sequence: Sequence) -> int:
    """The same with a spare block, for policies that start many at once: a fifth fewer preemptions
    (simulated) than where everyone's first steps run into each other."""
    return next_slots(sequence) + BLOCK_SIZE


def next_slots(sequence: Sequence) -> int:
    """Slots for what a sequence has and its next token: the least to start with."""
    return sequence.num_tokens + 1
