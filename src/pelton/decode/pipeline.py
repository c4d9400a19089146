"""The order of the processors. A new one is a file and a row here.

The order is vLLM V1's: masks and bias, penalties, then, only where a token is drawn at random,
temperature, min-p, top-k and top-p. vLLM has no typical-p; it comes last, as in Hugging Face.
"""

from __future__ import annotations

from collections.abc import Callable

from ..config import SamplingParams
from .grammar_mask import GrammarMask
from .masks import AllowedTokens, BadWords, BannedTokens, LogitBias, MinTokens
from .min_p import MinP
from .penalties import CountPenalty, RepetitionPenalty
from .processor import Processor, RequestTokens
from .temperature import Temperature
from .top_k import TopK
from .top_p import TopP
from .typical_p import TypicalP

Build = Callable[[SamplingParams, RequestTokens], Processor | None]

ALWAYS: tuple[Build, ...] = (
    GrammarMask.from_params,
    AllowedTokens.from_params,
    BannedTokens.from_params,
    BadWords.from_params,
    MinTokens.from_params,
    LogitBias.from_params,
    RepetitionPenalty.from_params,
    CountPenalty.from_params,
)
"""Processors that can change which token is the most likely; greedy decoding applies them too."""

SAMPLING: tuple[Build, ...] = (
    Temperature.from_params,
    MinP.from_params,
    TopK.from_params,
    TopP.from_params,
    TypicalP.from_params,
)
"""Processors that shape a distribution to draw from; greedy decoding has no use for them."""


def build_processors(params: SamplingParams, tokens: RequestTokens) -> tuple[Processor, ...]:
    """The processors a request needs, in order; empty for plain greedy decoding."""
    steps = ALWAYS if params.is_greedy else ALWAYS + SAMPLING
    built = (build(params, tokens) for build in steps)
    return tuple(processor for processor in built if processor is not None)
