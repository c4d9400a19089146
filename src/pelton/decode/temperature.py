"""Temperature: how far the distribution is sharpened or flattened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import SamplingParams
from .history import TokenHistory
from .processor import Logits, RequestTokens


@dataclass(frozen=True, slots=True)
class Temperature:
    """Divides the logits by `temperature`. Source: Ackley, Hinton, Sejnowski, Cognitive Science 1985."""

    temperature: float

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> Temperature | None:
        return None if params.temperature == 1.0 else cls(params.temperature)

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        with np.errstate(over="ignore"):
            np.divide(logits, np.float32(self.temperature), out=logits)
