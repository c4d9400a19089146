"""Top-k: only the k most likely tokens."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import SamplingParams
from .history import TokenHistory
from .order import top_set
from .processor import Logits, RequestTokens, keep_only


@dataclass(frozen=True, slots=True)
class TopK:
    """Keeps the `k` largest logits. Source: Fan et al., ACL 2018 (arXiv 1805.04833).

    Exactly k are kept: of tokens that tie for the last place those with the lowest ids. (vLLM and
    Hugging Face keep all that tie.)
    """

    k: int

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> TopK | None:
        return cls(params.top_k) if 0 < params.top_k < tokens.vocab_size else None

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        keep_only(logits, top_set(logits, self.k))
