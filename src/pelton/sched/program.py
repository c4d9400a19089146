"""Agents are served as programs: who has had least so far, over all of its calls, comes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from .mlfq import level_of
from .overtaking import BoundedOvertaking
from .policy import Rank, roomy_slots
from .protocol import Planned
from .sequence import Sequence
from .service import service_of

MOST_PROGRAMS = 4096
"""Programs remembered; names come from outside. The one unused for longest is forgotten first."""
STARVATION_RATIO = 8.0
"""A call that has waited so many times what it was served rises to the first queue."""
_LEAST_SERVED = 5.0


@dataclass
class _Call:
    program: tuple[str, str] | None
    attained: float  # by its program when it arrived
    arrival: float
    served: float = 0.0  # decode steps
    running_seconds: float = 0.0


class ProgramAttainedService:
    """The scheduler of "Autellix: An Efficient Serving Engine for LLM Agents as General Programs".

    A call starts with what its program has attained: the longest chain of service through the calls that
    have ended (Autellix's ATLAS; for a program that makes one call after the other this is the sum over its
    calls, PLAS). That and its own service choose one of the queues, whose quanta double; calls within one go
    in order of arrival. So the first calls of a program, and short programs, are not held up by long ones
    between their calls. A call that waits too long for what it is served rises to the first queue, and one
    that too many later calls have passed comes first (overtaking.py). A
    request that names no program is a program of its own. Promise: exact = True.
    """

    exact = True
    preemptive = True
    restless = True
    tries = 1
    by_age = 8

    def __init__(self) -> None:
        self._overtaking = BoundedOvertaking()
        self._attained: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._calls: dict[int, _Call] = {}
        self._last_step = 0.0

    def attained(self, tenant: str, program: str) -> float:
        """Service on a program's longest chain of finished calls, in decode steps."""
        return self._attained.get((tenant, program), 0.0)

    def added(self, sequence: Sequence, now: float) -> None:
        self._overtaking.added(sequence.id)
        terms = sequence.terms
        program = (terms.tenant, terms.program) if terms.program else None
        attained = self._attained.get(program, 0.0) if program else 0.0
        self._calls[sequence.id] = _Call(program, attained, now)

    def rank(self, sequence: Sequence, now: float) -> Rank:
        if self._overtaking.is_exceeded(sequence.id):
            return (-1, sequence.id)
        call = self._calls[sequence.id]
        waited = now - call.arrival - call.running_seconds
        if waited > STARVATION_RATIO * max(call.running_seconds, _LEAST_SERVED):
            return (0, call.arrival)
        return (level_of(call.attained + call.served), call.arrival)

    def slots(self, sequence: Sequence) -> int | None:
        return roomy_slots(sequence)

    def ran(self, planned: Seq[Planned], now: float) -> None:
        """The time since the last step was spent on those that this step runs, near enough."""
        took, self._last_step = now - self._last_step, now
        for item in planned:
            call = self._calls[item.sequence.id]
            call.served += service_of(item)
            call.running_seconds += min(took, now - call.arrival)

    def removed(self, sequence: Sequence, now: float) -> None:
        self._overtaking.removed(sequence.id)
        call = self._calls.pop(sequence.id)
        if call.program is not None:
            chain = max(self._attained.get(call.program, 0.0), call.attained + call.served)
            self._attained[call.program] = chain
            self._attained.move_to_end(call.program)
            if len(self._attained) > MOST_PROGRAMS:
                self._attained.popitem(last=False)
