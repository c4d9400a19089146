"""Drafts copied from earlier in the same text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import I32
from .draft import Draft


@dataclass(frozen=True)
class NgramDrafter:
    """Prompt lookup decoding (Saxena 2023): what followed the last few tokens the last time.

    Promise: exact = True; with a verifier that couples random numbers the text is the one plain
    decoding gives, and summaries, edits and code that repeat their input need fewer steps.
    """

    longest: int = 4
    length: int = 8
    exact: bool = True

    def propose(self, tokens: I32, most: int) -> Draft | None:
        most = min(most, self.length)
        for size in range(min(self.longest, len(tokens) - 1), 0, -1):
            start = _last_match(tokens, size)
            if start is not None and most > 0:
                return Draft(tuple(tokens[start : start + most].tolist()))
        return None


def _last_match(tokens: I32, size: int) -> int | None:
    """Where the text after the newest earlier copy of the last `size` tokens starts."""
    windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], size)
    (found,) = np.nonzero((windows == tokens[-size:]).all(axis=1))
    return int(found[-1]) + size if len(found) else None
