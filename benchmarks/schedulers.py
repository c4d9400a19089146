"""Every scheduler on ShareGPT and on made-up agents, simulated with measured steps: what each is good for.

    python benchmarks/schedulers.py [--seeds 1 2 ...] [--real MODEL] [--scale 1000] [--out docs/measurements]

On traces that no policy was tuned on (schedulers_traces.py). A seed takes about two minutes. Its rows take
the place of those that schedulers.csv had of it; table and schedulers.png are of all held-out seeds there.
--seeds 0 is the trace that was tuned on. --real also runs a small trace on the engine and compares it with
its simulation; --scale also runs that many machines' worth of load for a minute.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from scheduler_cases import PLENTY, costs, machine, simulated_against_real
from schedulers_traces import SEEDS, TUNED_ON, capacity, trace

from pelton.cost.simulator import SimulatedMachine, simulate
from pelton.cost.simulator_report import Figures, cells, figures_of, write_csv
from pelton.cost.simulator_trace import Trace, TraceShape, sharegpt_trace
from pelton.decode.finish import FinishRules
from pelton.decode.history import TokenHistory
from pelton.decode.request import DecodeRequest
from pelton.kv import BlockPool, BlockTable
from pelton.sched.lengths import LengthPredictor
from pelton.sched.registry import POLICIES
from pelton.sched.sequence import Sequence

MODEL = "smollm2-135m"
RUNS = (("sharegpt", 0.95, 1024), ("sharegpt", 1.15, 1024), ("agent", 1.7, 3000))
"""Trace, load over what the machine serves of that very trace when all comes at once, and KV blocks.
Programs wait for their own calls, so that all at once leave the machine idle."""
SHOWN = ("ttft_p50", "ttft_p99", "job_mean", "job_p50", "job_p99", "program_p50", "program_p99", "on_time")
SCALE_SECONDS = 20

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--schedulers", nargs="*", default=list(POLICIES))
    parser.add_argument("--real", metavar="MODEL", help="also compare with the engine running this model")
    parser.add_argument("--scale", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/measurements"))
    options = parser.parse_args()
    rows = kept_rows(options.out / "schedulers.csv", options.seeds, options.schedulers)
    rows += simulated_runs(options.seeds, options.schedulers)
    rows.sort(key=lambda row: (str(row["trace"]), float(row["load"]), int(row["seed"])))
    write_csv(options.out / "schedulers.csv", rows)
    held_out = [row for row in rows if int(row["seed"]) > 0]
    print_table(held_out)
    plot(options.out / "schedulers.png", held_out)
    print(predictor_quality())
    if options.scale:
        print(at_scale(options.scale))
    if options.real:
        measured = simulated_against_real(options.real)
        print(f"{measured.metric}: {measured.value:.1f} {measured.unit}")


def kept_rows(path: Path, seeds: Seq[int], names: Seq[str]) -> list[Row]:
    """What the table has of other seeds and schedulers."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[Row] = list(csv.DictReader(file))
    return [
        row for row in rows if "seed" in row and not (int(row["seed"]) in seeds and row["scheduler"] in names)
    ]


def simulated_runs(seeds: Seq[int], names: Seq[str]) -> Iterator[Row]:
    """One row a seed, trace, load and scheduler."""
    for seed in seeds:
        for kind, load, blocks in RUNS:
            rate = load * capacity(MODEL, kind, seed)
            for name in names:
                row = figures_of(simulate(trace(kind, seed, rate), name, machine(MODEL, blocks)))
                yield {"trace": kind, "load": load, "seed": seed, **cells(row)}


def spread(rows: Seq[Row], kind: str, load: float, name: str, figure: str) -> tuple[float, float, float]:
    """Median, least and most over the seeds."""
    values = [
        float(row[figure])
        for row in rows
        if (row["trace"], float(row["load"]), row["scheduler"]) == (kind, load, name)
    ]
    return median(values), min(values), max(values)


def print_table(rows: Seq[Row]) -> None:
    names = list(dict.fromkeys(str(row["scheduler"]) for row in rows))
    seeds = sorted({int(row["seed"]) for row in rows})
    for kind, load, _ in RUNS:
        print(f"\n{kind} at {load:g} of capacity, seconds, median (least-most) of seeds {seeds}:")
        print(f"{'':17}" + "".join(f"{name:>19}" for name in SHOWN))
        for name in names:
            found = (spread(rows, kind, load, name, figure) for figure in SHOWN)
            print(f"{name:17}" + "".join(f"{f'{m:.3g} ({a:.3g}-{b:.3g})':>19}" for m, a, b in found))


def at_scale(factor: int) -> str:
    """Load for `factor` machines on one simulated machine `factor` times as large."""
    rate = 0.95 * capacity(MODEL, "sharegpt", 1) * factor
    made = sharegpt_trace(TraceShape(calls=int(rate * SCALE_SECONDS), rate=rate, tenants=3))
    large = SimulatedMachine(costs(MODEL), 1024, swap_blocks=PLENTY).scaled(factor)
    lines = [f"\n{len(made.calls)} calls at {rate:.0f} a second ({factor} machines' load):"]
    for name in ("token-budget", "mlfq", "fair"):
        start = perf_counter()
        row: Figures = figures_of(simulate(made, name, large))
        lines.append(
            f"{name:18} {row.tokens_per_second:.0f} tokens/s, TTFT p99 {row.ttft_p99:.3f} s,"
            f" {row.seconds:.0f} simulated seconds in {perf_counter() - start:.0f}"
        )
    return "\n".join(lines)


def predictor_quality(calls: int = 4000) -> str:
    """Answers' lengths predicted one after another, each before it is learnt, on held-out conversations."""
    made = sharegpt_trace(TraceShape(calls=TUNED_ON + calls, rate=1.0, tenants=1))
    held_out = Trace(made.calls[TUNED_ON:])
    predicted, actual, running = [], [], []
    predictor = LengthPredictor(costly=True)
    mean = 200.0
    for sequence, length in _sequences(held_out):
        features = predictor.features(sequence)
        predicted.append(predictor.expected(features, 1024))
        running.append(mean)
        actual.append(length)
        predictor.learn(sequence, features, length)
        mean += (length - mean) / 100
    half = calls // 2  # the first half it still learns the most
    p, m, a = (np.array(values[half:]) for values in (predicted, running, actual))
    ranks = np.corrcoef(np.argsort(np.argsort(p)), np.argsort(np.argsort(a)))[0, 1]
    middle = np.median(a)
    sorted_right = ((p > np.median(p)) == (a > middle)).mean()
    return (
        f"\npredicted lengths of {len(a)} ShareGPT answers: mean error {np.abs(p - a).mean():.0f} tokens"
        f" (always the mean: {np.abs(m - a).mean():.0f}), rank correlation {ranks:.2f},"
        f" right side of the median {100 * sorted_right:.0f} %"
    )


def _sequences(made: Trace) -> Iterator[tuple[Sequence, int]]:
    pool = BlockPool(1)
    for index, call in enumerate(made.calls):
        rules = FinishRules(frozenset(), frozenset(), 0, call.most)
        decode = DecodeRequest((), True, 0, 0, None, TokenHistory(()))
        table = BlockTable(pool, lambda source, target: None)
        yield Sequence(index, call.prompt, decode, rules, table, call.terms), len(call.answer)


def plot(path: Path, rows: Seq[Row]) -> None:
    """A bar for each median and a line from the least to the most; nothing where matplotlib is missing."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    shown = ("ttft_p50", "job_p50", "job_p99", "program_p50")
    names = list(dict.fromkeys(str(row["scheduler"]) for row in rows))
    colors = ["0.6" if name == "token-budget" else "tab:blue" for name in names]
    figure, axes = plt.subplots(len(RUNS), len(shown), figsize=(15, 3 * len(RUNS)), squeeze=False)
    for line, (kind, load, _) in zip(axes, RUNS, strict=True):
        for axis, what in zip(line, shown, strict=True):
            found = [spread(rows, kind, load, name, what) for name in names]
            errors = [[m - a for m, a, _ in found], [b - m for m, _, b in found]]
            axis.barh(names, [m for m, _, _ in found], xerr=errors, color=colors)
            axis.invert_yaxis()
            axis.set_title(f"{kind} at {load:g}: {what} (s)", fontsize=9)
            axis.tick_params(labelsize=8)
            if axis is not line[0]:
                axis.set_yticklabels([])
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
