"""Log probabilities as users see them: of the model's own distribution, before any processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import NotFiniteError
from .order import top_order
from .processor import Logits


@dataclass(frozen=True, slots=True)
class Logprob:
    """Natural logarithm of a token's probability and its rank, 1 for the most likely token.

    Equal logits rank by token id, so ranks are distinct. The text layer fills in `decoded_token`.
    """

    logprob: float
    rank: int
    decoded_token: str | None = None


TokenLogprobs = dict[int, Logprob]
"""Token id -> Logprob: the chosen token first, then the most likely ones in order."""


def not_finite() -> NotFiniteError:
    return NotFiniteError("logits are not finite: the model computed NaN, or ruled out every token")


def token_logprobs(logits: Logits, token: int, num_top: int) -> TokenLogprobs:
    """The logprob of `token` and those of the `num_top` most likely tokens of one row [V].

    Raises RequestError if a logit is NaN or all are -infinity.
    """
    top = top_order(logits, min(num_top, len(logits)))
    wanted = np.concatenate([np.array([token], dtype=np.intp), top])
    values = _log_softmax_at(logits, wanted).tolist()
    entries = {token: Logprob(values[0], _rank(logits, token))}
    for rank, (top_token, value) in enumerate(zip(top.tolist(), values[1:], strict=True), start=1):
        entries[top_token] = Logprob(value, rank)
    return entries


def prompt_logprobs(logits: NDArray[np.float32], targets: Sequence[int], num_top: int) -> list[TokenLogprobs]:
    """Logprobs of prompt tokens: row i of `logits` [T, V] predicts `targets[i]`, the token after it.

    The first prompt token has no row; a prompt that runs in chunks calls this once a chunk. Raises
    RequestError if a logit is NaN.
    """
    assert len(logits) == len(targets)
    return [token_logprobs(row, int(token), num_top) for row, token in zip(logits, targets, strict=True)]


def _log_softmax_at(logits: Logits, ids: NDArray[np.intp]) -> NDArray[np.float64]:
    peak = float(logits.max())
    if not peak > -np.inf:
        raise not_finite()
    if peak == np.inf:
        at_peak = logits == np.float32(np.inf)
        return np.where(at_peak[ids], -np.log(np.count_nonzero(at_peak)), -np.inf)
    shifted = logits.astype(np.float64)
    shifted -= peak
    chosen = shifted[ids]
    return np.asarray(chosen - np.log(np.exp(shifted, out=shifted).sum()))


def _rank(logits: Logits, token: int) -> int:
    value = logits[token]
    before = int(np.count_nonzero(logits[:token] == value))
    return 1 + before + int(np.count_nonzero(logits > value))
