"""Typical-p: tokens whose surprise is near what the distribution leads one to expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import SamplingParams
from .history import TokenHistory
from .order import fewest_with_mass
from .processor import Logits, RequestTokens, keep_only
from .softmax import candidates, softmax_weights


@dataclass(frozen=True, slots=True)
class TypicalP:
    """Keeps tokens by how near their surprise is to the entropy, until their probabilities reach `p`.

    Source: Meister et al., "Locally Typical Sampling", TACL 2023 (arXiv 2202.00666). Nearness is
    compared in float32; tokens equally near are taken in order of their ids.
    """

    p: float

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> TypicalP | None:
        return cls(params.typical_p) if params.typical_p < 1.0 else None

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        ids = candidates(logits)
        values = logits if ids is None else logits[ids]
        if len(values) == 0:
            return
        weights = softmax_weights(values, float(values.max()))
        probabilities = weights / weights.sum()
        with np.errstate(divide="ignore"):
            surprise = -np.log(probabilities)
        possible = probabilities > 0
        entropy = float(np.sum(surprise[possible] * probabilities[possible]))
        nearness = -np.abs(surprise - entropy).astype(np.float32)
        kept = fewest_with_mass(nearness, lambda head: probabilities[head], self.p)
        keep_only(logits, kept if ids is None else ids[kept])
