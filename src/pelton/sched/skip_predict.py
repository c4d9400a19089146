"""Predict where it pays: a cheap guess for everyone, a costly one for those that seem long."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from .lengths import Features, LengthPredictor
from .overtaking import BoundedOvertaking
from .policy import Rank, roomy_slots
from .protocol import Planned
from .sequence import Sequence

SHORT = 128
"""Answers up to so many tokens are short: one of lengths.EDGES."""
SETTLED = 0.8
"""A sequence that has said this share of its predicted answer is not preempted any more."""


@dataclass
class _Job:
    cheap: Features
    is_short: bool
    costly: Features | None = None
    predicted: float = 0.0


class SkipPredict:
    """The scheduler of "SkipPredict: When to Invest in Predictions for Scheduling".

    A one-bit prediction from the request's own fields tells short answers from long ones. Short ones run
    first, in order of arrival. The costly prediction, from the whole prompt, is made for the long ones
    alone, and only once no short one waits, since it takes time from the same machine (the paper's
    server-time model); by it the long ones run with the shortest remaining first. An answer that turns out
    longer than short joins the long ones. Preemption is limited: who has said most of its answer stays.
    Who was passed by too many comes first (overtaking.py).
    Promise: exact = True; mean time to completion near that of knowing the lengths, at a share of the cost.
    """

    exact = True
    preemptive = True
    restless = True
    tries = 1
    by_age = 8

    def __init__(self, cheap: LengthPredictor | None = None, costly: LengthPredictor | None = None) -> None:
        self._overtaking = BoundedOvertaking()
        self._cheap = cheap or LengthPredictor(costly=False)
        self._costly = costly or LengthPredictor(costly=True)
        self._jobs: dict[int, _Job] = {}
        self._waiting_short: set[int] = set()
        self.cheap_predictions = 0
        self.costly_predictions = 0

    def added(self, sequence: Sequence, now: float) -> None:
        self._overtaking.added(sequence.id)
        features = self._cheap.features(sequence)
        limit = sequence.rules.max_tokens
        self.cheap_predictions += 1
        is_short = limit <= SHORT or self._cheap.exceeds(features, SHORT) < 0.5
        self._jobs[sequence.id] = _Job(features, is_short)
        if is_short and sequence.computed == 0:
            self._waiting_short.add(sequence.id)

    def rank(self, sequence: Sequence, now: float) -> Rank:
        if self._overtaking.is_exceeded(sequence.id):
            return (-1, sequence.id)
        job = self._jobs[sequence.id]
        said = sequence.num_outputs
        if job.is_short and said <= SHORT:
            return (0, 0)
        if job.costly is None:
            if self._waiting_short and said == 0:
                return (2, 0)  # not predicted yet: it could not start now anyway
            job.costly = self._costly.features(sequence)
            self.costly_predictions += 1
            job.predicted = self._predict(sequence, job)
        if said > job.predicted:
            job.predicted = self._predict(sequence, job)
        if said >= SETTLED * job.predicted:
            return (0, 0)
        return (1, job.predicted - said)

    def slots(self, sequence: Sequence) -> int | None:
        return roomy_slots(sequence)

    def ran(self, planned: Seq[Planned], now: float) -> None:
        for item in planned:
            self._waiting_short.discard(item.sequence.id)

    def removed(self, sequence: Sequence, now: float) -> None:
        self._overtaking.removed(sequence.id)
        job = self._jobs.pop(sequence.id)
        self._waiting_short.discard(sequence.id)
        if sequence.num_outputs:
            self._cheap.learn(sequence, job.cheap, sequence.num_outputs)
            costly = job.costly if job.costly is not None else self._costly.features(sequence)
            self._costly.learn(sequence, costly, sequence.num_outputs)

    def _predict(self, sequence: Sequence, job: _Job) -> float:
        assert job.costly is not None
        return self._costly.expected(job.costly, sequence.rules.max_tokens, sequence.num_outputs)
