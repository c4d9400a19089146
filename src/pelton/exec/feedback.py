"""Several greedy passes in a row: what each finds, the next one reads."""

from __future__ import annotations

from collections.abc import Collection

from .protocol import Executor, Forward


def feed_back(executor: Executor, forward: Forward, passes: int, ends: Collection[int]) -> list[list[int]]:
    """The definition of Forward.feed_back, one pass at a time."""
    found: list[list[int]] = []
    while True:
        forward.advance()
        found.append(forward.greatest())
        if len(found) == passes or any(token < 0 or token in ends for token in found[-1]):
            return found
        forward = executor.begin(forward.batch.moved_on(found[-1]), forward.kv)
