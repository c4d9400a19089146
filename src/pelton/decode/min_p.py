"""Min-p: only tokens not much less likely than the likeliest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..config import SamplingParams
from .history import TokenHistory
from .processor import REFUSED, Logits, RequestTokens


@dataclass(frozen=True, slots=True)
class MinP:
    """Keeps tokens whose probability is at least `ratio` times the largest one.

    Source: Nguyen et al., "Turning Up the Heat: Min-p Sampling", 2024 (arXiv 2407.01082). Tested on
    logits, where the ratio is a difference: no softmax is needed.
    """

    ratio: float

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> MinP | None:
        return cls(params.min_p) if params.min_p > 0.0 else None

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        lowest = np.float32(float(logits.max()) + math.log(self.ratio))
        logits[logits < lowest] = REFUSED
