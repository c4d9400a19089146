"""Earliest deadline first, as long as the deadline can still be met."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from math import inf

from .lengths import Features, LengthPredictor
from .policy import Rank, roomy_slots
from .protocol import Planned
from .rates import StepRates
from .sequence import Sequence


@dataclass
class _Job:
    due: float  # on the scheduler's clock; inf: no deadline
    features: Features
    expected: float  # length of its answer


class EarliestDeadline:
    """Earliest deadline first, for deadlines that can be met.

    A request's slack is what is left until its deadline less the time its remaining rows will take, by the
    measured cost of steps and the answer's predicted length. Requests that can still be in time run first,
    the earliest deadline before the others (optimal on one machine if all can be met, Liu and Layland 1973).
    Requests without a deadline come next, in order of arrival; those that will be late anyway come last, so
    that in an overload one lateness does not cause the next. Promise: exact = True.
    """

    exact = True
    preemptive = True
    restless = True
    tries = 1
    by_age = 8

    def __init__(self, rates: StepRates, predictor: LengthPredictor | None = None) -> None:
        self._rates = rates
        self._predictor = predictor or LengthPredictor(costly=True)
        self._jobs: dict[int, _Job] = {}
        self._decoding = 1.0  # sequences that decode together, a moving mean

    def added(self, sequence: Sequence, now: float) -> None:
        deadline = sequence.terms.deadline
        arrival = now if sequence.arrival is None else sequence.arrival  # a fork's is its request's
        due = inf if deadline is None else arrival + deadline
        features = self._predictor.features(sequence)
        expected = self._predictor.expected(features, sequence.rules.max_tokens, sequence.num_outputs)
        self._jobs[sequence.id] = _Job(due, features, expected)

    def slack(self, sequence: Sequence, now: float) -> float:
        """Seconds to spare if it ran from now on; below 0: it will be late."""
        job = self._jobs[sequence.id]
        said = sequence.num_outputs
        if said >= job.expected:
            job.expected = self._predictor.expected(job.features, sequence.rules.max_tokens, said)
        left = job.expected - said
        prompt = max(0, sequence.num_tokens - sequence.computed - 1)
        together = self._rates.seconds(round(self._decoding))
        return job.due - now - prompt * self._rates.row - left * together

    def rank(self, sequence: Sequence, now: float) -> Rank:
        job = self._jobs[sequence.id]
        if job.due == inf:
            return (1, 0)
        if self.slack(sequence, now) >= 0:
            return (0, job.due)
        return (2, job.due)

    def slots(self, sequence: Sequence) -> int | None:
        return roomy_slots(sequence)

    def ran(self, planned: Seq[Planned], now: float) -> None:
        decoding = sum(item.sequence.is_decoding for item in planned)
        self._decoding += 0.05 * (max(decoding, 1) - self._decoding)

    def removed(self, sequence: Sequence, now: float) -> None:
        job = self._jobs.pop(sequence.id)
        if sequence.num_outputs:
            self._predictor.learn(sequence, job.features, sequence.num_outputs)
