"""`pelton bench simulate`: schedulers side by side on one trace, on a simulated clock with measured steps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import note, say, say_json, say_table
from ..options import EngineFlags, Json, parse_weights

if TYPE_CHECKING:
    from ...cost.simulator_cost import StepCost
    from ...cost.simulator_report import Figures
    from ...cost.simulator_trace import Trace

_SHOWN = (
    "ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99", "job_mean", "job_p50", "job_p99",
    "program_p50", "program_p99", "jain", "on_time", "preemptions",
)  # fmt: skip


def simulate(
    *,
    engine: EngineFlags,
    trace: Annotated[
        str, typer.Option("--trace", help="A JSON-lines file, or sharegpt or agent to make one.")
    ] = "sharegpt",
    rate: Annotated[float, typer.Option("--rate", help="Calls (agent: programs) a second.")] = 4.0,
    calls: Annotated[int, typer.Option("--calls", min=1, help="Calls of a made-up trace.")] = 500,
    scale: Annotated[
        int, typer.Option("--scale", min=1, max=100_000, help="Machines' worth of load, memory and speed.")
    ] = 1,
    kv_blocks: Annotated[int, typer.Option("--kv-blocks", min=1, help="KV blocks of one machine.")] = 1024,
    swap_blocks: Annotated[int, typer.Option("--swap-blocks", min=0, help="Of them for swapping.")] = 512,
    costs: Annotated[
        Path | None, typer.Option("--costs", help="Step costs to use; measured and kept if not given.")
    ] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Measure the steps again.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write all figures there.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    json: Json = False,
) -> None:
    """Replay a trace through schedulers (--scheduler all, or names with commas) without running the model."""
    from ...cost.simulator import SimulatedMachine
    from ...cost.simulator import simulate as run
    from ...cost.simulator_report import cells, figures_of, write_csv

    names = schedulers_named(engine.scheduler)
    wanted = trace_named(trace, rate * scale, calls * scale, seed)
    weights = parse_weights(engine.tenant_weight or ())
    machine = SimulatedMachine(
        step_costs_for(engine, costs, again=calibrate),
        kv_blocks,
        engine.max_num_seqs,
        engine.max_num_batched_tokens,
        swap_blocks,
        tenant_weights=weights,
    ).scaled(scale)
    figures = [figures_of(run(wanted, name, machine), weights) for name in names]
    if csv is not None:
        write_csv(csv, [cells(row) for row in figures])
    if json:
        say_json({"trace": wanted.name, "calls": len(wanted.calls), "runs": [cells(row) for row in figures]})
    else:
        _say_figures(wanted, figures)


def schedulers_named(text: str) -> list[str]:
    """`all`, or names with commas between. Raises ConfigError."""
    from ...errors import ConfigError
    from ...settings import SCHEDULERS

    names = list(SCHEDULERS) if text == "all" else text.split(",")
    for name in names:
        if name not in SCHEDULERS:
            raise ConfigError(f"must be all or of {', '.join(SCHEDULERS)}", field="scheduler", value=name)
    return names


def trace_named(name: str, rate: float, calls: int, seed: int) -> Trace:
    """A made-up trace or a file's. Raises ConfigError."""
    from ...cost.simulator_trace import TraceShape, agent_trace, read_trace, sharegpt_trace

    if name not in ("sharegpt", "agent"):
        return read_trace(Path(name), seed)
    shape = TraceShape(calls=calls, rate=rate, seed=seed, tenants=3, deadlines=name == "sharegpt")
    return sharegpt_trace(shape) if name == "sharegpt" else agent_trace(shape)


def step_costs_for(engine: EngineFlags, given: Path | None, *, again: bool) -> StepCost:
    """Step costs from a file; without one, those kept for this model, measured once on its engine."""
    from ...cost.simulator_cost import StepCost
    from ...cost.simulator_cost import calibrate as measure
    from ..home import machines_folder

    if given is not None and not again:
        return StepCost.load(given)
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", engine.model)[-80:]
    path = given or machines_folder() / f"steps-{name}.json"
    if path.is_file() and not again:
        return StepCost.load(path)
    note(f"measuring what steps of {engine.model} take on this machine")
    with replace(engine, scheduler="token-budget", drafts="off").open() as llm:
        found = measure(llm, engine.model)
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save(path)
    note(f"kept in {path}; mean error of the fit {found.error:.0%}")
    if found.error > 0.2:
        note("other programs disturbed it: run again with --calibrate when the machine is idle")
    return found


def _say_figures(trace: Trace, figures: list[Figures]) -> None:
    from ...cost.simulator_report import cells

    say(f"{trace.name}: {len(trace.calls)} calls; seconds, simulated")
    rows = []
    for row in figures:
        values = cells(row)
        rows.append((row.scheduler, *(f"{values[name]:.6g}" for name in _SHOWN)))
    say_table(("scheduler", *_SHOWN), rows, right=_SHOWN)
