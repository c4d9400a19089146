"""Offline batches: requests that begin alike run together, so that what they share is computed once."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from itertools import pairwise
from math import ceil

import numpy as np

from ..types import BLOCK_SIZE, I32
from .policy import Rank
from .protocol import Planned
from .sequence import Sequence

MOST_COMPARED = 8192
"""Prompt tokens that are compared with other prompts'."""
SPARE = 1.1
"""Memory set aside for an answer, over the mean share of their limit that answers so far used."""


def common_blocks(one: I32, other: I32) -> int:
    """Whole blocks that two prompts begin with alike."""
    length = min(len(one), len(other), MOST_COMPARED)
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0] if len(differing) else length) // BLOCK_SIZE


def grouped(prompts: Seq[I32], decoded: Seq[int]) -> list[int]:
    """Indices of prompts in the order to run them; `decoded` are the tokens each may generate.

    Sorted by their tokens, prompts that share a beginning are neighbours at every depth: a walk through the
    tree of all prompts. Cut where neighbours share least, which makes the groups, and the groups with most
    decoding for their prompt rows go first.
    """
    order = sorted(range(len(prompts)), key=lambda i: prompts[i][:MOST_COMPARED].astype(">i4").tobytes())
    shared = [common_blocks(prompts[a], prompts[b]) for a, b in pairwise(order)]
    least = min(shared, default=0)
    groups: list[list[int]] = []
    rows: list[int] = []
    for place, index in enumerate(order):
        if place == 0 or shared[place - 1] == least:
            groups.append([])
            rows.append(0)
        groups[-1].append(index)
        known = shared[place - 1] * BLOCK_SIZE if place else 0
        rows[-1] += len(prompts[index]) - known
    ratios = [
        sum(decoded[i] for i in group) / max(1, count) for group, count in zip(groups, rows, strict=True)
    ]
    best = sorted(range(len(groups)), key=lambda g: (-ratios[g], min(groups[g])))
    return [index for g in best for index in groups[g]]


class PrefixGroups:
    """The scheduler of "BatchLLM: Optimizing Large Batched LLM Inference with Global Prefix Sharing and
    Throughput-oriented Token Batching".

    Common beginnings are found over all waiting prompts before they run; who shares one runs together. A
    sequence waits while another computes blocks that both begin with, then takes them from the prefix cache
    while they are in use, so each is computed once and kept no longer than its group needs. Groups that
    decode much for the prompt they bring go first, so that their decoding mixes with the later prompts.
    How many run is decided by memory, not by a count: a sequence starts when its prompt and the answer that
    is to be expected fit (`scheduler_for` lifts the limit on sequences to the row budget).

    Promise: exact = True; no shared block of prompts that wait together is computed twice while its group
    runs, which needs the prefix cache.
    """

    exact = True
    preemptive = False
    restless = True
    tries = 64
    by_age = 64

    def __init__(self) -> None:
        self._known: dict[int, Sequence] = {}
        self._places: dict[int, int] = {}
        self._filling: dict[int, Sequence] = {}  # who runs and has not computed its prompt yet
        self._unsorted = False
        self._used, self._allowed = 1.0, 1.0  # tokens of ended answers, and what they might have had

    def added(self, sequence: Sequence, now: float) -> None:
        self._known[sequence.id] = sequence
        self._unsorted = True

    def rank(self, sequence: Sequence, now: float) -> Rank:
        if self._unsorted:
            self._sort()
        return (self._places[sequence.id],)

    def slots(self, sequence: Sequence) -> int | None:
        if sequence.prefix is not None and any(
            common_blocks(sequence.tokens, other.tokens) > other.computed // BLOCK_SIZE
            for other in self._filling.values()
            if other.table.blocks  # else it was preempted and waits itself
        ):
            return None  # another is computing what this one begins with
        self._filling[sequence.id] = sequence  # until this step is over, if it starts
        share = min(1.0, SPARE * self._used / self._allowed)
        answer = max(sequence.num_outputs + 1, ceil(share * sequence.rules.max_tokens))
        return sequence.num_prompt + answer

    def ran(self, planned: Seq[Planned], now: float) -> None:
        done = {item.sequence.id for item in planned if item.sequence.missing == item.rows}
        self._filling = {
            number: sequence
            for number, sequence in self._filling.items()
            if number not in done and sequence.table.blocks
        }

    def removed(self, sequence: Sequence, now: float) -> None:
        del self._known[sequence.id]
        self._places.pop(sequence.id, None)
        self._filling.pop(sequence.id, None)
        if sequence.num_outputs:
            self._used += sequence.num_outputs
            self._allowed += sequence.rules.max_tokens

    def _sort(self) -> None:
        members = list(self._known.values())
        order = grouped([s.tokens for s in members], [s.rules.max_tokens for s in members])
        self._places = {members[index].id: place for place, index in enumerate(order)}
        self._unsorted = False
