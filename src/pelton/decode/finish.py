"""When a request has ended, as far as tokens tell; stop strings are the text layer's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..config import SamplingParams
from .processor import RequestTokens

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Finish:
    """Why a sequence ended, in vLLM's terms: `stop_reason` is the stop token's id, None for an end token."""

    finish_reason: FinishReason
    stop_reason: int | str | None = None


@dataclass(frozen=True, slots=True)
class FinishRules:
    """The rules one request's tokens are held to.

    `max_tokens` is the request's, or what the context leaves. Below `min_tokens` nothing stops a
    sequence; the MinTokens mask has kept end and stop tokens from being chosen there.
    """

    end_token_ids: frozenset[int]
    stop_token_ids: frozenset[int]
    min_tokens: int
    max_tokens: int

    @classmethod
    def from_params(
        cls, params: SamplingParams, tokens: RequestTokens, context_length: int, prompt_length: int
    ) -> FinishRules:
        """The rules for a request whose parameters passed `validate_for` with the same lengths."""
        return cls(
            end_token_ids=frozenset() if params.ignore_eos else frozenset(tokens.end_token_ids),
            stop_token_ids=frozenset(params.stop_token_ids),
            min_tokens=params.min_tokens,
            max_tokens=params.token_limit(context_length, prompt_length),
        )

    def check(self, token: int, num_outputs: int) -> Finish | None:
        """Whether the sequence ends with `token`, the last of `num_outputs` generated tokens.

        An end or stop token counts as a stop even where it is also the last that fits.
        """
        if num_outputs >= self.min_tokens:
            if token in self.end_token_ids:
                return Finish("stop")
            if token in self.stop_token_ids:
                return Finish("stop", token)
        return Finish("length") if num_outputs >= self.max_tokens else None
