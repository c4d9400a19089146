"""One bit about a cached block: will it be wanted soon? Learned while serving, from the cache's own hits."""

from __future__ import annotations

from typing import Protocol

Traits = tuple[int, ...]
"""What is known of a block when it is requested; equal traits share what was learned."""


class ReusePredictor(Protocol):
    """May be wrong: whoever uses it bounds what a wrong bit costs."""

    def predict(self, traits: Traits) -> bool:
        """Whether a block with these traits will be requested in the next phase."""

    def learn(self, traits: Traits, reused: bool) -> None:
        """Whether it was."""


class ReuseCounts:
    """For each combination of traits, how often such blocks were reused: one in five is enough to be kept.

    In the bound of "Paging with Succinct Predictions" a block wrongly given up costs H(k), 4 to 8 misses for
    a cache of k = 30 to 1,500 blocks, one wrongly kept costs 1; hence not the majority. Counts are halved
    now and then, so that a change of load is learned. Before anything is known a block is kept.
    """

    MOST_SEEN = 256
    WORTH = 4.0

    def __init__(self) -> None:
        self._seen: dict[Traits, list[float]] = {}  # traits -> [reused, not reused]

    def predict(self, traits: Traits) -> bool:
        reused, unused = self._seen.get(traits, (0.0, 0.0))
        return self.WORTH * reused >= unused

    def learn(self, traits: Traits, reused: bool) -> None:
        counts = self._seen.setdefault(traits, [0.0, 0.0])
        counts[0 if reused else 1] += 1.0
        if sum(counts) > self.MOST_SEEN:
            counts[0] /= 2
            counts[1] /= 2
