"""Rows of logits -> chosen tokens, one independent row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..exec.greatest import places_of_greatest
from .logprobs import TokenLogprobs, not_finite, token_logprobs
from .philox import uniform
from .processor import REFUSED, Logits
from .request import DecodeRequest
from .shape import RowChooser, RowToChoose
from .softmax import Weights, candidates, softmax_weights

DRAW_BLOCK = 256
"""Candidates summed together when drawing: a running sum over 49,152 entries took 140 us, this 15."""


class Decoded(NamedTuple):
    """A chosen token, with the log probabilities that were asked for."""

    token: int
    logprobs: TokenLogprobs | None = None


Outcome = Decoded | RequestError
"""What became of a row: an error is a value, so one bad row leaves the others alone."""


@dataclass(frozen=True)
class Sampler:
    """Chooses each row's next token: the most likely, or one drawn by the row's own random number.

    `chooser` does so natively where a row needs no other processor than temperature, min-p, top-k and
    top-p. It is an implementation of what is written here: tokens are the same without it.
    """

    chooser: RowChooser | None = None

    def sample(self, logits: NDArray[np.float32], requests: Sequence[DecodeRequest]) -> list[Outcome]:
        """Row r of `logits` [R, V] is the next token of `requests[r]`; neither is changed."""
        assert logits.shape[:-1] == (len(requests),)
        if all(request.is_plain for request in requests):
            if self.chooser is None:
                tokens = places_of_greatest(logits)
            else:
                tokens = self.chooser.most_likely(np.ascontiguousarray(logits))
            return [outcome_of(token) for token in tokens]
        if self.chooser is not None:
            return self._sample_natively(self.chooser, np.ascontiguousarray(logits), requests)
        return [_sample_row(row, request) for row, request in zip(logits, requests, strict=True)]

    def sample_row(self, logits: Logits, request: DecodeRequest) -> Outcome:
        """The next token of one request from its row [V]."""
        return self.sample(logits[np.newaxis], [request])[0]

    def _sample_natively(
        self, chooser: RowChooser, logits: NDArray[np.float32], requests: Sequence[DecodeRequest]
    ) -> list[Outcome]:
        rows = [_row_to_choose(row, request) for row, request in enumerate(requests) if request.shape]
        tokens = chooser.choose(logits, rows) if rows else []
        chosen = {row[0]: token for row, token in zip(rows, tokens, strict=True)}
        return [
            _sample_row(logits[row], request, chosen.get(row, -1)) for row, request in enumerate(requests)
        ]


def outcome_of(token: int) -> Outcome:
    """What becomes of a row whose most likely token that is; -1: it has none."""
    return Decoded(token) if token >= 0 else not_finite()


def _row_to_choose(row: int, request: DecodeRequest) -> RowToChoose:
    shape = request.shape
    assert shape is not None
    random = 0.0 if request.greedy else _random(request)
    return row, shape.temperature, shape.log_min_p, shape.top_k, shape.top_p, random


def _sample_row(logits: Logits, request: DecodeRequest, chosen: int = -1) -> Outcome:
    """What becomes of a row; `chosen` is its token where that is known already."""
    try:
        token = chosen if chosen >= 0 else _choose(logits, request)
        if request.logprobs is None:
            return Decoded(token)
        return Decoded(token, token_logprobs(logits, token, request.logprobs))
    except RequestError as error:
        return error


def _random(request: DecodeRequest) -> float:
    return uniform(request.seed, request.history.position, request.stream)


def _choose(logits: Logits, request: DecodeRequest) -> int:
    if not logits.max() > REFUSED:
        raise not_finite()
    if request.processors:
        logits = logits.copy()
        for processor in request.processors:
            processor.apply(logits, request.history)
        if not logits.max() > REFUSED:
            raise RequestError("the request's masks and penalties leave no token to choose from")
    if request.greedy:
        return int(logits.argmax())
    return draw(logits, _random(request))


def draw(logits: Logits, random: float) -> int:
    """The token at `random` in [0, 1) of the cumulative distribution of `logits` [V] by token id.

    Inverse transform sampling: one number decides, so equal logits and numbers give equal tokens.
    A token of probability zero is never drawn.
    """
    ids = candidates(logits)
    values = logits if ids is None else logits[ids]
    place = _place_at(softmax_weights(values, float(values.max())), random)
    return place if ids is None else int(ids[place])


def _place_at(weights: Weights, random: float) -> int:
    """Sums blocks first, then looks inside one."""
    block_end = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), DRAW_BLOCK)))
    total = int(block_end[-1])
    target = min(int(random * total), total - 1)  # rounding may take it to the total
    block = int(np.searchsorted(block_end, target, side="right"))
    before = int(block_end[block - 1]) if block else 0
    start = block * DRAW_BLOCK
    inside = np.cumsum(weights[start : start + DRAW_BLOCK])
    return start + int(np.searchsorted(inside, target - before, side="right"))
