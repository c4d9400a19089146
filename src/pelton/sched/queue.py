"""Sequences that hold no KV and wait for their turn."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from .policy import Rank
from .sequence import Sequence

RERANKED_AT_ONCE = 64
SELDOM = 16
"""A longer queue is ranked anew only every so many steps: 1,000 ranks take about a millisecond."""
SPARE_ENTRIES = 64
"""Entries of who has left go when there are so many more of them than of those who wait."""

_Entry = tuple[Rank, int, Sequence]


class WaitingQueue:
    """A heap by rank; ties go to who joined first. Removal leaves the entry, to be skipped or cleared later.

    Nobody is ranked before the next look at the queue, when everyone who came with it is there.
    """

    def __init__(self, rank: Callable[[Sequence], Rank]) -> None:
        self._rank = rank
        self._unranked: list[_Entry] = []
        self._heap: list[_Entry] = []
        self._live: dict[int, _Entry] = {}  # sequence id -> its entry, in the order of joining
        self._count = 0
        self._skipped_steps = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.id in self._live

    def add(self, sequence: Sequence) -> None:
        self._count += 1
        entry: _Entry = ((), self._count, sequence)
        self._live[sequence.id] = entry
        self._unranked.append(entry)

    def remove(self, sequence: Sequence) -> None:
        del self._live[sequence.id]
        if not self._live:
            self._heap.clear()
            self._unranked.clear()
        elif len(self._heap) + len(self._unranked) > 2 * len(self._live) + SPARE_ENTRIES:
            self._unranked = [entry for entry in self._unranked if self._is_live(entry)]
            self._heap = [entry for entry in self._heap if self._is_live(entry)]
            heapq.heapify(self._heap)

    def best(self) -> tuple[Sequence, Rank]:
        """The head of a queue that is not empty."""
        self._rank_new()
        while True:
            entry = self._heap[0]
            if self._is_live(entry):
                return entry[2], entry[0]
            heapq.heappop(self._heap)

    def longest_waiting(self) -> Sequence:
        return next(iter(self._live.values()))[2]

    def ordered(self, most: int) -> Iterator[Sequence]:
        """The `most` best, best first."""
        if most == 1:
            yield self.best()[0]
            return
        self._rank_new()
        for entry in heapq.nsmallest(most, self._live.values()):
            yield entry[2]

    def rank_again(self) -> None:
        """Ranks have changed; a long queue puts this off for some steps."""
        self._skipped_steps += 1
        if not self._live or (len(self._live) > RERANKED_AT_ONCE and self._skipped_steps < SELDOM):
            return
        self._skipped_steps = 0
        self._unranked.clear()
        for key, (_, count, sequence) in self._live.items():
            self._live[key] = (self._rank(sequence), count, sequence)
        self._heap = list(self._live.values())
        heapq.heapify(self._heap)

    def _is_live(self, entry: _Entry) -> bool:
        return self._live.get(entry[2].id) is entry

    def _rank_new(self) -> None:
        for entry in self._unranked:
            sequence = entry[2]
            if self._is_live(entry):
                ranked = (self._rank(sequence), entry[1], sequence)
                self._live[sequence.id] = ranked
                heapq.heappush(self._heap, ranked)
        self._unranked.clear()
