"""What an engine step says of its sequences."""

from __future__ import annotations

from typing import NamedTuple

from .decode.finish import Finish
from .decode.logprobs import TokenLogprobs
from .errors import PeltonError


class TokenEvent(NamedTuple):  # made for each token; a frozen dataclass takes three times as long
    """One generated token of a sequence, or its end. Every sequence ends with exactly one event whose
    `finish` or `error` is set; it carries the last token unless `token` is None."""

    sequence: int
    token: int | None
    logprobs: TokenLogprobs | None = None
    finish: Finish | None = None
    error: PeltonError | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    num_cached: int = 0
    started: float | None = None
    hidden_state: tuple[float, ...] | None = None

    @property
    def is_last(self) -> bool:
        return self.finish is not None or self.error is not None
