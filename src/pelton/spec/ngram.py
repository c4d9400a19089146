"""Drafts copied from earlier in the same text."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import ConfigError
from ..types import I32
from .draft import Draft


@dataclass(frozen=True)
class NgramDrafter:
    """Prompt lookup decoding (Saxena 2023): what followed the last few tokens the last time.

    Of all earlier places where the text's last `shortest` tokens stand, the one that agrees with most of
    its last `longest`, and of those the newest. A text that goes in circles is drafted beyond its end.

    Promise: exact = True; with a verifier that couples random numbers the text is the one plain
    decoding gives, and summaries, edits and code that repeat their input need fewer steps.
    """

    shortest: int = 2
    longest: int = 8
    length: int = 8
    exact: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise ConfigError(
                f"must be from 1 to longest = {self.longest}", field="shortest", value=self.shortest
            )

    def propose(self, tokens: I32, most: int) -> Draft | None:
        most = min(most, self.length)
        start = self._continuation(tokens)
        if start is None or most <= 0:
            return None
        follows = tokens[start : start + most].tolist()
        repeats = -(-most // len(follows))
        return Draft(tuple((follows * repeats)[:most]))

    def _continuation(self, tokens: I32) -> int | None:
        """Where the text after the best earlier copy of its end starts; O(tokens)."""
        size, end = self.shortest, len(tokens)
        if end <= size:
            return None
        # Starts of what may follow a copy: the end itself is none.
        here = tokens[size - 1 : end - 1] == tokens[end - 1]
        for back in range(1, size):
            here &= tokens[size - 1 - back : end - 1 - back] == tokens[end - 1 - back]
        starts = np.flatnonzero(here) + size
        for back in range(size, min(self.longest, end - 1)):
            inside = starts[starts > back]
            longer = inside[tokens[inside - 1 - back] == tokens[end - 1 - back]]
            if not len(longer):
                break
            starts = longer
        return int(starts[-1]) if len(starts) else None
