"""What a draft is, and what every drafter offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..types import I32

MOST_DRAFTED = 64
"""Tokens of one draft; it runs whole, or not at all where a step has too few rows left."""


@dataclass(frozen=True)
class Draft:
    """A tree of guessed tokens. `parents[i]` is the index of token i's parent in the draft, -1 for
    a child of the sequence's last token; None means a chain. Parents come before their children."""

    tokens: tuple[int, ...]
    parents: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        assert 0 < len(self.tokens) <= MOST_DRAFTED
        if self.parents is not None:
            assert len(self.parents) == len(self.tokens)
            assert all(-1 <= parent < index for index, parent in enumerate(self.parents))


class Drafter(Protocol):
    """Guesses continuations. A wrong guess costs time, never a different text.

    `shortest`: it drafts only where the last so many tokens stand earlier in the text, too; 0: anywhere.
    """

    @property
    def shortest(self) -> int: ...

    def propose(self, tokens: I32, most: int) -> Draft | None:
        """A draft of at most `most` tokens that may follow `tokens` (read only), or None."""
