"""What every logits processor is: a value that changes one row of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .grammar import Grammar
from .history import TokenHistory

Logits = NDArray[np.float32]

REFUSED = np.float32(-np.inf)
"""The logit of a token that must not be chosen."""


class Processor(Protocol):
    """One step from the model's logits to those that are sampled from.

    A processor is frozen and is built by its `from_params`, which returns None where the request's
    settings leave it nothing to do. It sees one row, so no row depends on another.
    """

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        """Change `logits` [V] in place; `history` is read only. No logit is NaN, before or after."""
        ...


@dataclass(frozen=True, slots=True)
class RequestTokens:
    """What a request's settings mean in one model's tokens.

    `end_token_ids` end a text (the model's EOS and its kin); `bad_sequences` are the spellings in
    tokens of the request's bad words. `grammar` is its `structured_outputs`, compiled.
    """

    vocab_size: int
    end_token_ids: tuple[int, ...] = ()
    bad_sequences: tuple[tuple[int, ...], ...] = ()
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        assert self.vocab_size > 0
        for sequence in (self.end_token_ids, *self.bad_sequences):
            assert all(0 <= token < self.vocab_size for token in sequence)
        assert all(self.bad_sequences)


def keep_only(logits: Logits, ids: NDArray[np.intp]) -> None:
    """Refuse every token of `logits` [V] but `ids`."""
    kept = logits[ids]
    logits.fill(REFUSED)
    logits[ids] = kept
