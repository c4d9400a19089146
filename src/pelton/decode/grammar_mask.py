"""The processor that keeps a text in its grammar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import SamplingParams
from .history import TokenHistory
from .processor import REFUSED, Logits, RequestTokens


@dataclass(frozen=True, slots=True)
class GrammarMask:
    """Refuses what the grammar of `structured_outputs` does not allow next. Its state is the history's.

    Raises RequestError, which ends this sequence alone, where the grammar outgrew its limits.
    """

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> GrammarMask | None:
        return None if params.structured_outputs is None else cls()

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        assert history.grammar is not None
        np.copyto(logits, REFUSED, where=~history.grammar.allowed())
