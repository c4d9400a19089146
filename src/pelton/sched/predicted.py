"""Memory set aside for the answer that is expected, not for the longest one allowed."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from .lengths import Features, LengthPredictor
from .policy import Rank
from .protocol import Planned
from .sequence import Sequence

WINDOW = 32
"""Arrivals among which the longest start first."""
QUANTILE = 0.7
"""Share of answers that the memory set aside is to be enough for."""


@dataclass
class _Prediction:
    features: Features
    length: int
    window: int


class PredictedLength:
    """The scheduler of "S^{3}: Increasing GPU Utilization during Generative Inference for Higher Throughput".

    A predictor that learns from every answer that ends says how long an answer will be; a sequence starts
    when that many KV slots are free and no others have spoken for them. Packing is first fit, decreasing:
    within a window of arrivals the longest start first and whoever fits goes ahead. A sequence that outgrows
    its prediction goes on while there is memory; where there is none it is the first to give way, and is
    promised twice as much when it returns. Promise: exact = True; fewer preemptions than starting everyone
    who fits now, more sequences at once than setting aside the most that each may need.
    """

    exact = True
    preemptive = False
    restless = False
    tries = WINDOW
    by_age = 8

    def __init__(self, predictor: LengthPredictor | None = None) -> None:
        self._predictor = predictor or LengthPredictor(costly=True)
        self._predictions: dict[int, _Prediction] = {}

    def added(self, sequence: Sequence, now: float) -> None:
        features = self._predictor.features(sequence)
        most = sequence.rules.max_tokens
        length = self._predictor.quantile(features, QUANTILE, most, sequence.num_outputs)
        self._predictions[sequence.id] = _Prediction(features, length, sequence.id // WINDOW)

    def rank(self, sequence: Sequence, now: float) -> Rank:
        prediction = self._predictions[sequence.id]
        outgrown = sequence.num_outputs > prediction.length
        return (outgrown and sequence.computed > 0, prediction.window, -prediction.length)

    def slots(self, sequence: Sequence) -> int | None:
        prediction = self._predictions[sequence.id]
        if sequence.num_outputs >= prediction.length:  # it gave way: a misprediction, doubled
            prediction.length = min(max(2 * sequence.num_outputs, 1), sequence.rules.max_tokens)
        return sequence.num_prompt + max(prediction.length, sequence.num_outputs + 1)

    def ran(self, planned: Seq[Planned], now: float) -> None:
        pass

    def removed(self, sequence: Sequence, now: float) -> None:
        prediction = self._predictions.pop(sequence.id)
        if sequence.num_outputs:
            self._predictor.learn(sequence, prediction.features, sequence.num_outputs)
