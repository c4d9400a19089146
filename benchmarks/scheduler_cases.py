"""The cases of techniques.py about schedulers, mostly on a simulated clock with measured steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from measured import ROUNDS, Measured, greedy, random_prompt

from pelton import LLM
from pelton.cost.simulator import SimulatedMachine, simulate
from pelton.cost.simulator_cost import StepCost, calibrate
from pelton.cost.simulator_replay import replay
from pelton.cost.simulator_report import Figures, figures_of
from pelton.cost.simulator_trace import Call, Trace, TraceShape, agent_trace, sharegpt_trace
from pelton.kv import SwapSpace
from pelton.sched.rates import StepRates
from pelton.sched.swapping import SwapOrRecompute
from pelton.types import I32

CALLS = 1500
BUSY, OVERLOAD = 0.95, 1.15
"""Calls a second, over what the machine serves when all come at once."""
AGENTS = 2.4
"""The same for programs: all at once they leave the machine idle, for each waits for its own calls."""
PLENTY = 8192


COSTS = Path(__file__).parent.parent / "docs" / "measurements" / "step_costs.json"
"""Steps measured once on an idle machine (`pelton bench simulate --calibrate --costs FILE`)."""


@lru_cache(maxsize=4)
def costs(model: str) -> StepCost:
    """The kept costs if they are this model's; else measured now."""
    kept = StepCost.load(COSTS)
    if kept.model == model:
        return kept
    with LLM(model, drafts="off", context_length=2048, kv_memory=1 << 30) as llm:
        return calibrate(llm, model)


def machine(model: str, blocks: int = 1024, swap: int = PLENTY, places: int = 32) -> SimulatedMachine:
    return SimulatedMachine(costs(model), blocks, places, 512, swap)


def capacity(model: str, trace: Callable[[TraceShape], Trace]) -> float:
    """Calls (agent: programs) of a trace that the machine serves in a second when all come at once."""
    made = trace(TraceShape(calls=300, rate=1e6, tenants=3))
    run = simulate(made, "token-budget", machine(model, PLENTY))
    return len({c.terms.program or i for i, c in enumerate(made.calls)}) / run.seconds


@lru_cache(maxsize=64)
def figures(model: str, trace: str, scheduler: str, load: float, blocks: int = 1024) -> Figures:
    """A scheduler on ShareGPT calls or agents that come at `load` times the machine's capacity."""
    maker = {"sharegpt": sharegpt_trace, "agent": agent_trace}[trace]
    rate = load * capacity(model, maker)
    shape = TraceShape(calls=CALLS, rate=rate, tenants=3, deadlines=trace == "sharegpt")
    return figures_of(simulate(maker(shape), scheduler, machine(model, blocks)))


def against_first_come(
    trace: str, scheduler: str, figure: str, said: str, load: float = BUSY, blocks: int = 1024
) -> Callable[[str], Measured]:
    """How many times shorter a time is than first come, first served has it."""

    def measure(model: str) -> Measured:
        plain, other = (figures(model, trace, name, load, blocks) for name in ("token-budget", scheduler))
        ratio = getattr(plain, figure) / getattr(other, figure)
        return Measured(said, ratio, "times shorter", "first come, first served (simulated)")

    return measure


def reserved(model: str) -> Measured:
    """Throughput with 160 blocks when memory for the predicted answer is set aside, or for the longest."""
    shape = TraceShape(calls=600, rate=1e6, tenants=3)
    trace = sharegpt_trace(shape)
    small = machine(model, blocks=160, swap=0)
    predicted = figures_of(simulate(trace, "predicted-length", small))
    # A limit on sequences that guarantees room for the longest answers: what reserving them comes to.
    longest = max(len(call.prompt) + call.most for call in trace.calls)
    worst = machine(model, blocks=160, swap=0, places=max(1, 160 * 32 // longest))
    plain = figures_of(simulate(trace, "token-budget", worst))
    return Measured(
        "throughput with little memory",
        predicted.tokens_per_second / plain.tokens_per_second,
        "times",
        "memory set aside for the longest answer allowed (simulated)",
    )


def deadlines(model: str) -> Measured:
    plain, other = (figures(model, "sharegpt", name, OVERLOAD) for name in ("token-budget", "deadline"))
    return Measured(
        "deadlines met in an overload of 15 %",
        100 * other.on_time,
        "%",
        f"{100 * plain.on_time:.0f} % first come, first served (simulated)",
    )


def fair_shares(model: str) -> Measured:
    """One tenant asks for half of everything, two for a quarter each, all for more than their share."""
    shape = TraceShape(calls=CALLS, rate=3 * capacity(model, sharegpt_trace), tenants=3)
    trace = sharegpt_trace(shape)
    plain, fair = (figures_of(simulate(trace, name, machine(model))) for name in ("token-budget", "fair"))
    return Measured(
        "difference between tenants' service, over its mean",
        fair.spread,
        "",
        f"{plain.spread:.2g} first come, first served (simulated)",
    )


def grouped_batch(model: str) -> Measured:
    """400 prompts that begin with one of 40 texts of 640 tokens, in any order, in 600 blocks."""
    random = np.random.default_rng(0)

    def tokens(count: int) -> I32:
        return random.integers(0, 30_000, count).astype(np.int32)

    beginnings = [tokens(640) for _ in range(40)]
    calls = []
    for index in random.permutation(400).tolist():
        prompt = np.concatenate([beginnings[index % 40], tokens(40)])
        calls.append(Call(0.0, prompt, tokens(int(random.integers(8, 64))), 64))
    small = machine(model, blocks=600)
    rows = {
        name: simulate(Trace(calls), name, small).prompt_rows for name in ("token-budget", "prefix-groups")
    }
    return Measured(
        "prompt tokens computed of an offline batch with shared beginnings",
        rows["token-budget"] / rows["prefix-groups"],
        "times fewer",
        "first come, first served with the same prefix cache (simulated)",
    )


def switched(model: str) -> Measured:
    """How long giving up and getting back 1,000 tokens holds up the engine: copied, or computed again."""
    ratios = []
    with LLM(model, drafts="off", context_length=2048, prefix_cache=False) as llm:
        engine = llm.engine
        space = SwapSpace(engine.kv, 1 << 30)
        block = engine.kv.layout.block_bytes
        swap = SwapOrRecompute(space, engine.pool, (1 << 30) // block, block, StepRates())
        for seed in range(ROUNDS):
            state = llm.requests.add(random_prompt(llm, 1000, seed), greedy(50))
            start = perf_counter()
            while not engine.scheduler.running or not engine.scheduler.running[0].num_outputs:
                llm.requests.step()
            computing = perf_counter() - start
            sequence = engine.scheduler.running[0]
            start = perf_counter()
            swap.out(sequence)
            swap.back(sequence)
            ratios.append(computing / (perf_counter() - start))
            swap.forget(sequence)
            llm.requests.abort(state)
    return Measured(
        "time that a switch out and back of 1,000 tokens takes", median(ratios), "times shorter", "recompute"
    )


def copied_ahead(model: str) -> Measured:
    """How long a switch out holds up the engine with all but the last block copied beside an earlier step."""
    ratios = []
    with LLM(model, drafts="off", context_length=2048, prefix_cache=False) as llm:
        engine = llm.engine
        for seed in range(ROUNDS):
            state = llm.requests.add(random_prompt(llm, 1000, seed), greedy(50))
            while not engine.scheduler.running or not engine.scheduler.running[0].num_outputs:
                llm.requests.step()
            sequence = engine.scheduler.running[0]
            space, slots = SwapSpace(engine.kv, 1 << 30), sequence.computed
            start = perf_counter()
            space.out(sequence.table, slots)
            whole = perf_counter() - start
            space = SwapSpace(engine.kv, 1 << 30)
            ahead = space.out(sequence.table, slots // 32 * 32)
            start = perf_counter()
            space.out(sequence.table, slots, ahead)
            ratios.append(whole / (perf_counter() - start))
            llm.requests.abort(state)
    return Measured(
        "time that a switch out of 1,000 tokens holds up the engine",
        median(ratios),
        "times shorter",
        "all blocks copied at the switch",
    )


def simulated_against_real(model: str) -> Measured:
    """40 ShareGPT calls on the engine, and simulated with the costs of its own steps."""
    shape = TraceShape(calls=40, rate=4.0, most=96, longest=600, tenants=2)
    made = sharegpt_trace(shape)
    calls = [Call(c.arrival, c.prompt, c.answer, len(c.answer), c.terms) for c in made.calls]
    with LLM(model, drafts="off", context_length=2048, kv_memory=1 << 30) as llm:
        cost = min((calibrate(llm, model) for _ in range(ROUNDS)), key=lambda found: found.error)
        real = replay(llm.engine, Trace(calls), "token-budget")
        blocks = llm.engine.pool.num_blocks
    run = simulate(Trace(calls), "token-budget", SimulatedMachine(cost, blocks))
    jobs = [
        ((s.finished or 0.0) - s.arrival, (r.finished or 0.0) - r.arrival)
        for s, r in zip(run.results, real.results, strict=True)
    ]
    error = median(abs(simulated - measured) / measured for simulated, measured in jobs)
    return Measured("median error of a call's simulated completion time", 100 * error, "%", "the engine")


SCHEDULER_CASES: Mapping[str, Callable[[str], Measured]] = {
    "skip-join-mlfq": against_first_come(
        "sharegpt", "mlfq", "job_p50", "median completion of ShareGPT calls at 95 % load"
    ),
    "swap-or-recompute": switched,
    "cheap-context-switches": copied_ahead,
    "predicted-length": reserved,
    "skip-predict": against_first_come(
        "sharegpt", "skip-predict", "job_p50", "median completion of ShareGPT calls at 95 % load"
    ),
    "program-attained-service": against_first_come(
        "agent", "program", "program_p50", "median completion of agents under contention", AGENTS, 3000
    ),
    "prefix-groups": grouped_batch,
    "earliest-deadline": deadlines,
    "fair-shares": fair_shares,
    "simulator": simulated_against_real,
}
