"""Every tenant gets its share of the machine, however much the others ask for."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq

from .policy import Rank, roomy_slots
from .protocol import Planned
from .sequence import Sequence
from .service import service_of

QUANTUM = 32.0
"""Service by which tenants may run ahead of each other before places change hands, in decode steps."""
MOST_TENANTS = 4096


class FairShares:
    """Weighted fair sharing between tenants by virtual token counters (VTC of "Fairness in Serving Large
    Language Models").

    Every row that runs is charged to its tenant, divided by the tenant's weight; who has been charged least
    runs first. A tenant that comes back after a pause starts at the least counter of those present, so
    idling saves up nothing. `priority` comes first: lower numbers are served before higher ones, and shares
    are fair within a number.

    Promise: exact = True; of two tenants that always have work, neither gets more than a bound beyond its
    share: `QUANTUM`, and what one step and the sequences that hold a place can take.
    """

    exact = True
    preemptive = True
    restless = True
    tries = 1
    by_age = 32  # for low priorities; what runs by age is charged like everything else

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._charged: dict[str, float] = {}
        self._present: dict[str, int] = {}  # sequences of each tenant that has any
        self._floor = 0.0  # the least counter of a tenant when it left nobody behind

    def added(self, sequence: Sequence, now: float) -> None:
        tenant = sequence.terms.tenant
        if tenant not in self._present:
            least = min((self._charged[other] for other in self._present), default=self._floor)
            self._charged[tenant] = max(self._charged.get(tenant, 0.0), least)
            self._present[tenant] = 0
            self._forget_absent(least)
        self._present[tenant] += 1

    def rank(self, sequence: Sequence, now: float) -> Rank:
        terms = sequence.terms
        return (terms.priority, self._charged[terms.tenant] // QUANTUM)

    def slots(self, sequence: Sequence) -> int | None:
        return roomy_slots(sequence)

    def ran(self, planned: Seq[Planned], now: float) -> None:
        for item in planned:
            tenant = item.sequence.terms.tenant
            self._charged[tenant] += service_of(item) / self._weights.get(tenant, 1.0)

    def removed(self, sequence: Sequence, now: float) -> None:
        tenant = sequence.terms.tenant
        self._present[tenant] -= 1
        if self._present[tenant] == 0:
            del self._present[tenant]
            if not self._present:
                self._floor = max(self._floor, self._charged[tenant])

    def _forget_absent(self, least: float) -> None:
        """Counters that would be lifted anyway need not be kept: names of tenants come from outside."""
        if len(self._charged) > MOST_TENANTS:
            for name in [n for n in self._charged if n not in self._present]:
                if self._charged[name] <= least or len(self._charged) > 2 * MOST_TENANTS:
                    del self._charged[name]
