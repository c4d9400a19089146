"""Top-p: the smallest set of likely tokens that holds a share of the probability."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import SamplingParams
from .history import TokenHistory
from .order import fewest_with_mass
from .processor import Logits, RequestTokens, keep_only
from .softmax import candidates, softmax_weights


@dataclass(frozen=True, slots=True)
class TopP:
    """Keeps the most likely tokens until their probabilities reach `p`; at least one.

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020 (arXiv
    1904.09751). Tokens of equal logits are taken in order of their ids.
    """

    p: float

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> TopP | None:
        return cls(params.top_p) if params.top_p < 1.0 else None

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        ids = candidates(logits)
        values = logits if ids is None else logits[ids]
        if len(values) == 0:
            return
        peak = float(values.max())
        total = int(softmax_weights(values, peak).sum())
        share = min(math.ceil(self.p * total), total)
        kept = fewest_with_mass(values, lambda head: softmax_weights(values[head], peak), share)
        keep_only(logits, kept if ids is None else ids[kept])
