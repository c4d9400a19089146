"""Several greedy passes in a row: what each finds, the next one reads."""

from __future__ import annotations

import numpy as np

from ..types import I32
from .protocol import Executor, Forward, Until


def feed_back(executor: Executor, forward: Forward, passes: int, until: Until) -> list[list[int]]:
    """The definition of Forward.feed_back, one pass at a time."""
    found: list[list[int]] = []
    texts = dict(until.texts)
    while True:
        forward.advance()
        found.append(forward.greatest())
        texts = {row: np.append(text, np.int32(found[-1][row])) for row, text in texts.items()}
        if len(found) == passes or any(token < 0 or token in until.ends for token in found[-1]):
            return found
        if any(repeats(text, until.repeated) for text in texts.values()):
            return found
        forward = executor.begin(forward.batch.moved_on(found[-1]), forward.kv)


def repeats(tokens: I32, size: int) -> bool:
    """Whether the last `size` tokens stand among those before the last, too."""
    if len(tokens) <= size:
        return False
    windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], size)
    return bool((windows == tokens[-size:]).all(axis=1).any())
