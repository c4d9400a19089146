"""The traces that schedulers are compared on: no number in a policy was chosen by them.

Policies were tuned on the first 4,000 conversations of ShareGPT and on seed 0 of the made-up agents. A
held-out seed n (1, 2, ...) has the 1,500 conversations after those of seed n - 1, from number 4,000 on, and
agents, arrivals, tenants and deadlines of its own. Seed 0 is what was tuned on.
"""

from __future__ import annotations

from functools import lru_cache

from scheduler_cases import machine

from pelton.cost.simulator import simulate
from pelton.cost.simulator_trace import Call, Trace, TraceShape, agent_trace, sharegpt_trace

CALLS = 1500
TUNED_ON = 4000
SEEDS = (1, 2, 3, 4, 5)
AGENT_SEED = 1000
"""Added to a held-out seed for agents."""
ROOM = 8192


def first_of(seed: int) -> int:
    """Number of the first conversation of a seed."""
    return 0 if seed == 0 else TUNED_ON + (seed - 1) * CALLS


@lru_cache(maxsize=4)
def trace(kind: str, seed: int, rate: float) -> Trace:
    """`kind` at `rate` calls (agent: programs) a second."""
    if kind == "agent":
        number = seed + AGENT_SEED if seed else 0
        return agent_trace(TraceShape(calls=CALLS, rate=rate, tenants=3, seed=number))
    start = first_of(seed)
    shape = TraceShape(calls=start + CALLS, rate=rate, tenants=3, seed=seed, deadlines=True)
    calls = sharegpt_trace(shape).calls[start:]
    moved = [Call(c.arrival - calls[0].arrival, c.prompt, c.answer, c.most, c.terms) for c in calls]
    return Trace(moved, "sharegpt")


@lru_cache(maxsize=16)
def capacity(model: str, kind: str, seed: int) -> float:
    """Calls (agent: programs) of the trace itself that the machine serves in a second, all there at once."""
    made = trace(kind, seed, 1e6)
    run = simulate(made, "token-budget", machine(model, ROOM))
    return len({call.terms.program or i for i, call in enumerate(made.calls)}) / run.seconds
