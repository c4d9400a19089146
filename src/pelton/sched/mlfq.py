"""Short answers first without knowing which they are: queues that a sequence sinks through as it runs."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from .overtaking import BoundedOvertaking
from .policy import Rank, roomy_slots
from .protocol import Planned
from .sequence import Sequence
from .service import prompt_service, service_of

LEVELS = 9
FIRST_QUANTUM = 4.0
"""Service of the first queue in decode steps; each further queue has twice as much."""
PATIENCE = 20.0
"""Seconds without a row after which a sequence rises to the first queue."""


@dataclass
class _Job:
    level: int
    since: float  # when it joined its queue
    last_ran: float
    used: float = 0.0  # of its queue's quantum


def level_of(service: float) -> int:
    """The first queue whose quantum covers a service; the last takes everything."""
    level, quantum = 0, FIRST_QUANTUM
    while quantum < service and level < LEVELS - 1:
        level, quantum = level + 1, quantum * 2
    return level


class SkipJoinQueues:
    """Skip-join multi-level feedback queue of "Fast Distributed Inference Serving for Large Language Models".

    A prompt's length is known, its answer's is not: a sequence joins the first queue whose quantum covers
    its prompt (skipping those it would only sink through), sinks one queue each time its quantum is used
    up, and rises to the first when it has not run for `PATIENCE` seconds; before all queues, when too many
    later ones have passed it (overtaking.py). Better queues preempt worse ones
    at any token; who is preempted keeps its KV while there is room and is swapped out beside the step
    before room is needed (preemption.py). Promise: exact = True; short requests do not wait for long ones.
    """

    exact = True
    preemptive = True
    restless = True
    tries = 1
    by_age = 8

    def __init__(self) -> None:
        self._overtaking = BoundedOvertaking()
        self._jobs: dict[int, _Job] = {}

    def added(self, sequence: Sequence, now: float) -> None:
        self._overtaking.added(sequence.id)
        level = level_of(prompt_service(sequence.missing))
        self._jobs[sequence.id] = _Job(level, now, now)

    def rank(self, sequence: Sequence, now: float) -> Rank:
        if self._overtaking.is_exceeded(sequence.id):
            return (-1, sequence.id)
        job = self._jobs[sequence.id]
        if job.level > 0 and now - job.last_ran > PATIENCE:
            job.level, job.since, job.used = 0, now, 0.0
        return (job.level, job.since)

    def slots(self, sequence: Sequence) -> int | None:
        return roomy_slots(sequence)

    def ran(self, planned: Seq[Planned], now: float) -> None:
        for item in planned:
            job = self._jobs[item.sequence.id]
            job.last_ran = now
            job.used += service_of(item)
            if job.used >= FIRST_QUANTUM * 2**job.level and job.level < LEVELS - 1:
                job.level, job.since, job.used = job.level + 1, now, 0.0

    def removed(self, sequence: Sequence, now: float) -> None:
        self._overtaking.removed(sequence.id)
        del self._jobs[sequence.id]
