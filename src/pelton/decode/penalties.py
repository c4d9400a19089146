"""Processors that make a token less likely the more it has been used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import SamplingParams
from .history import TokenHistory
from .processor import Logits, RequestTokens


@dataclass(frozen=True, slots=True)
class RepetitionPenalty:
    """Divides positive logits of seen tokens by `penalty` and multiplies negative ones by it.

    Prompt and output count. Source: Keskar et al., "CTRL", 2019 (arXiv 1909.05858), section 4.1,
    with the sign rule of Hugging Face and vLLM.
    """

    penalty: float

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> RepetitionPenalty | None:
        return None if params.repetition_penalty == 1.0 else cls(params.repetition_penalty)

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        ids, _ = history.seen()
        penalty = np.float32(self.penalty)
        seen = logits[ids]
        with np.errstate(over="ignore"):
            logits[ids] = np.where(seen > 0, seen / penalty, seen * penalty)


@dataclass(frozen=True, slots=True)
class CountPenalty:
    """Subtracts `frequency` for each time a token is in the output and `presence` once if it is.

    Source: OpenAI's API reference, "frequency and presence penalties"; the prompt does not count.
    """

    frequency: float
    presence: float

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> CountPenalty | None:
        if params.frequency_penalty == 0.0 and params.presence_penalty == 0.0:
            return None
        return cls(params.frequency_penalty, params.presence_penalty)

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        ids, counts = history.seen()
        used = np.flatnonzero(counts)
        times = counts[used].astype(np.float32)
        penalised = logits[ids[used]] - np.float32(self.frequency) * times
        logits[ids[used]] = penalised - np.float32(self.presence)
