"""Every scheduler on ShareGPT and on made-up agents, simulated with measured steps: what each is good for.

    python benchmarks/schedulers.py [--real MODEL] [--scale 1000] [--out docs/measurements]

Writes schedulers.csv (all figures of each run) and schedulers.png. --real also runs a small trace on the
engine and compares it with its simulation; --scale also runs that many machines' worth of load for a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
from scheduler_cases import AGENTS, BUSY, OVERLOAD, PLENTY, capacity, costs, figures, simulated_against_real

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
RUNS = (("sharegpt", BUSY, 1024), ("sharegpt", OVERLOAD, 1024), ("agent", AGENTS, 3000))
SHOWN = ("ttft_p50", "ttft_p99", "job_mean", "job_p50", "job_p99", "program_p50", "jain", "on_time")
SCALE_SECONDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--real", metavar="MODEL", help="also compare with the engine running this model")
    parser.add_argument("--scale", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/measurements"))
    options = parser.parse_args()
    rows = list(simulated_runs())
    write_csv(options.out / "schedulers.csv", rows)
    plot(options.out / "schedulers.png", rows)
    print(predictor_quality())
    if options.scale:
        print(at_scale(options.scale))
    if options.real:
        measured = simulated_against_real(options.real)
        print(f"{measured.metric}: {measured.value:.1f} {measured.unit}")


def simulated_runs() -> Iterator[dict[str, object]]:
    """One row a trace, load and scheduler."""
    for trace, load, blocks in RUNS:
        print(f"\n{trace} at {load:g} of capacity, seconds:")
        print(f"{'':18}" + "".join(f"{name:>12}" for name in SHOWN))
        for name in POLICIES:
            row = figures(MODEL, trace, name, load, blocks)
            print(f"{name:18}" + "".join(f"{getattr(row, figure):12.3f}" for figure in SHOWN), flush=True)
            yield {"trace": trace, "load": load, **cells(row)}


def at_scale(factor: int) -> str:
    """Load for `factor` machines on one simulated machine `factor` times as large."""
    rate = BUSY * capacity(MODEL, sharegpt_trace) * factor
    trace = sharegpt_trace(TraceShape(calls=int(rate * SCALE_SECONDS), rate=rate, tenants=3))
    machine = SimulatedMachine(costs(MODEL), 1024, swap_blocks=PLENTY).scaled(factor)
    lines = [f"\n{len(trace.calls)} calls at {rate:.0f} a second ({factor} machines' load):"]
    for name in ("token-budget", "mlfq", "fair"):
        start = perf_counter()
        row: Figures = figures_of(simulate(trace, name, machine))
        lines.append(
            f"{name:18} {row.tokens_per_second:.0f} tokens/s, TTFT p99 {row.ttft_p99:.3f} s,"
            f" {row.seconds:.0f} simulated seconds in {perf_counter() - start:.0f}"
        )
    return "\n".join(lines)


def predictor_quality(calls: int = 4000) -> str:
    """Answers' lengths predicted one after another, each before it is learnt, on real conversations."""
    trace = sharegpt_trace(TraceShape(calls=calls, rate=1.0, tenants=1))
    predicted, actual, running = [], [], []
    predictor = LengthPredictor(costly=True)
    mean = 200.0
    for sequence, length in _sequences(trace):
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


def _sequences(trace: Trace) -> Iterator[tuple[Sequence, int]]:
    pool = BlockPool(1)
    for index, call in enumerate(trace.calls):
        rules = FinishRules(frozenset(), frozenset(), 0, call.most)
        decode = DecodeRequest((), True, 0, 0, None, TokenHistory(()))
        table = BlockTable(pool, lambda source, target: None)
        yield Sequence(index, call.prompt, decode, rules, table, call.terms), len(call.answer)


def plot(path: Path, rows: list[dict[str, object]]) -> None:
    """Bars for each trace; nothing where matplotlib is missing."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    shown = ("ttft_p50", "job_p50", "job_p99", "program_p50")
    kinds = list(dict.fromkeys((row["trace"], row["load"]) for row in rows))
    figure, axes = plt.subplots(len(kinds), len(shown), figsize=(15, 3 * len(kinds)), squeeze=False)
    for line, (trace, load) in zip(axes, kinds, strict=True):
        chosen = [row for row in rows if (row["trace"], row["load"]) == (trace, load)]
        names = [str(row["scheduler"]) for row in chosen]
        for axis, name in zip(line, shown, strict=True):
            values = [float(str(row[name])) for row in chosen]
            axis.barh(names, values, color=["0.6" if n == "token-budget" else "tab:blue" for n in names])
            axis.invert_yaxis()
            axis.set_title(f"{trace} at {load:g}: {name} (s)", fontsize=9)
            axis.tick_params(labelsize=8)
            if axis is not line[0]:
                axis.set_yticklabels([])
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
