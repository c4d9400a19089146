"""Processors that forbid tokens: allowed and banned lists, bad words, minimum length; and logit bias."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import SamplingParams
from .history import TokenHistory, TokenIds
from .processor import REFUSED, Logits, RequestTokens, keep_only


def _ids(tokens: Iterable[int]) -> TokenIds:
    return np.array(sorted(set(tokens)), dtype=np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class AllowedTokens:
    """Only `ids` may be chosen (`allowed_token_ids`)."""

    ids: TokenIds

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> AllowedTokens | None:
        allowed = params.allowed_token_ids
        return None if allowed is None else cls(_ids(allowed))

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        keep_only(logits, self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class BannedTokens:
    """None of `ids` may be chosen: `banned_token_ids`, and bad words of a single token."""

    ids: TokenIds

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> BannedTokens | None:
        single = [sequence[0] for sequence in tokens.bad_sequences if len(sequence) == 1]
        banned = _ids([*params.banned_token_ids, *single])
        return cls(banned) if len(banned) else None

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        logits[self.ids] = REFUSED


@dataclass(frozen=True, slots=True)
class BadWords:
    """Refuses the last token of a bad word where the output already ends with the rest of it.

    `endings` pairs the tokens before the last with the last. Like vLLM's, only the output counts.
    """

    endings: tuple[tuple[tuple[int, ...], int], ...]

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> BadWords | None:
        endings = tuple((word[:-1], word[-1]) for word in tokens.bad_sequences if len(word) > 1)
        return cls(endings) if endings else None

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        for beginning, last in self.endings:
            if history.output_ends_with(beginning):
                logits[last] = REFUSED


@dataclass(frozen=True, slots=True, eq=False)
class MinTokens:
    """Refuses the tokens that would end the text before `count` tokens are out (`min_tokens`)."""

    count: int
    ids: TokenIds

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> MinTokens | None:
        ends = () if params.ignore_eos else tokens.end_token_ids
        ids = _ids([*ends, *params.stop_token_ids])
        return cls(params.min_tokens, ids) if params.min_tokens and len(ids) else None

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        if history.num_outputs < self.count:
            logits[self.ids] = REFUSED


@dataclass(frozen=True, slots=True, eq=False)
class LogitBias:
    """Adds a number to some logits (`logit_bias`, as in OpenAI's API); a refused token stays refused."""

    ids: TokenIds
    biases: NDArray[np.float32]

    @classmethod
    def from_params(cls, params: SamplingParams, tokens: RequestTokens) -> LogitBias | None:
        if not params.logit_bias:
            return None
        ids = np.array(list(params.logit_bias), dtype=np.intp)
        return cls(ids, np.array(list(params.logit_bias.values()), dtype=np.float32))

    def apply(self, logits: Logits, history: TokenHistory) -> None:
        logits[self.ids] += self.biases
