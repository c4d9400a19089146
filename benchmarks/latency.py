"""pelton and llama.cpp on the same file, turn by turn: prompt and decode speed of one sequence.

    python benchmarks/latency.py [--model smollm2-135m] [--peer-python PATH] [--rounds 3] [--out FOLDER]

Each round runs `pelton bench latency --json` and then the peer, so that both meet the same machine.
Writes latency.csv (every sample), latency.md (a table) and latency.png (needs matplotlib).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import date
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pelton.errors import PeltonError
from pelton.weights.store import default_store

BUSY_LOAD = 0.7
PEER = Path(__file__).with_name("llama_cpp_peer.py")


@dataclass(frozen=True)
class Sample:
    """One repetition of one test by one engine; `ceiling` is the machine's, in tokens a second."""

    date: str
    machine: str
    threads: int
    model: str
    engine: str
    version: str
    round: int
    test: str
    tokens_per_second: float
    ceiling: float


def run_pelton(options: argparse.Namespace, file: Path, round_number: int) -> list[Sample]:
    command = [sys.executable, "-c", "from pelton.cli.main import main; main()", "bench", "latency", "--json"]
    command += ["-m", str(file), "-p", options.n_prompt, "-n", options.n_gen, "-d", str(options.depth)]
    document = run_json([*command, "-r", str(options.repetitions), "-t", str(options.threads)])
    name = f"{document['machine']['processor']}, level {document['machine']['isa']}"
    return [
        Sample(
            date.today().isoformat(), name, options.threads, options.model, "pelton", document["pelton"],
            round_number, row["test"], speed, row["ceiling_ts"],
        )
        for row in document["tests"]
        for speed in row["samples_ts"]
    ]  # fmt: skip


def run_peer(options: argparse.Namespace, file: Path, ours: Sequence[Sample]) -> list[Sample]:
    """The same tests by llama.cpp; machine, date and ceilings are those of our run just before."""
    first = {sample.test: sample for sample in reversed(ours)}
    names = [f"pp{count}" for count in options.n_prompt.split(",")]
    names += [f"tg{count}" for count in options.n_gen.split(",")]
    command = [options.peer_python, str(PEER), str(file), json.dumps(names), "--depth", str(options.depth)]
    document = run_json([*command, "-r", str(options.repetitions), "--threads", str(options.threads)])
    samples = []
    for row in document["tests"]:
        label = row["test"] + (f" @ d{options.depth}" if options.depth else "")
        like = first[label]
        for speed in row["samples_ts"]:
            samples.append(
                Sample(
                    like.date, like.machine, like.threads, like.model, "llama.cpp", document["version"],
                    like.round, label, speed, like.ceiling,
                )
            )  # fmt: skip
    return samples


def run_json(command: Sequence[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def table(samples: Sequence[Sample]) -> list[str]:
    """Markdown rows: each engine's mean and deviation, its share of the ceiling, and the ratio per round."""
    tests = list(dict.fromkeys(sample.test for sample in samples))
    lines = ["| test | engine | tokens/s | share of the ceiling | pelton / it |", "|---|---|--:|--:|--:|"]
    for test in tests:
        for engine in dict.fromkeys(sample.engine for sample in samples):
            chosen = [s for s in samples if (s.test, s.engine) == (test, engine)]
            if not chosen:
                continue
            speeds = [sample.tokens_per_second for sample in chosen]
            spread = stdev(speeds) if len(speeds) > 1 else 0.0
            share = fmean(s.tokens_per_second / s.ceiling for s in chosen)
            ratio = fmean(ratios(samples, test, engine))
            lines.append(
                f"| {test} | {engine} {chosen[0].version} | {fmean(speeds):.1f} ± {spread:.1f} |"
                f" {share:.1%} | {ratio:.2f} |"
            )
    return lines


def ratios(samples: Sequence[Sample], test: str, engine: str) -> list[float]:
    """pelton's mean over the engine's, one number a round."""

    def mean(name: str, number: int) -> float:
        return fmean(
            s.tokens_per_second for s in samples if (s.engine, s.test, s.round) == (name, test, number)
        )

    return [mean("pelton", number) / mean(engine, number) for number in {sample.round for sample in samples}]


def write(samples: Sequence[Sample], folder: Path, command: str, load: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "latency.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Sample)])
        writer.writerows(astuple(sample) for sample in samples)
    first = samples[0]
    heading = [
        f"# Latency of {first.model}",
        "",
        f"{first.date}, {first.machine}, {first.threads} threads, load average {load:.1f} before.",
        "Engines took turns in each round; all samples are in latency.csv. The ceiling is measured",
        "bandwidth over bytes read, or measured peak over multiply-adds, whichever is less.",
        "",
        f"    {command}",
        "",
    ]
    (folder / "latency.md").write_text("\n".join([*heading, *table(samples), ""]), encoding="utf-8")
    draw(samples, folder / "latency.png")


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Bars an engine with every sample as a dot, and the machine's ceiling as a line, one panel a test."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    tests = list(dict.fromkeys(sample.test for sample in samples))
    engines = list(dict.fromkeys(sample.engine for sample in samples))
    figure, panels = pyplot.subplots(1, len(tests), figsize=(3.2 * len(tests), 3.6), squeeze=False)
    for panel, test in zip(panels[0], tests, strict=True):
        ceilings = [sample.ceiling for sample in samples if sample.test == test]
        for place, engine in enumerate(engines):
            speeds = [s.tokens_per_second for s in samples if (s.test, s.engine) == (test, engine)]
            panel.bar(place, fmean(speeds), width=0.6, color=f"C{place}")
            panel.plot([place] * len(speeds), speeds, "k.", markersize=3)
        panel.axhline(fmean(ceilings), color="grey", linestyle="--", label="ceiling of the machine")
        panel.set_xticks(range(len(engines)), engines)
        panel.set_title(test)
        panel.set_ylim(bottom=0)
    panels[0][0].set_ylabel("tokens per second")
    panels[0][-1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a model of the store, or a GGUF file")
    parser.add_argument("--peer-python", help="an interpreter that has llama-cpp-python; none: pelton alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repetitions", "-r", type=int, default=3)
    parser.add_argument("--n-prompt", "-p", default="512")
    parser.add_argument("--n-gen", "-n", default="128")
    parser.add_argument("--depth", "-d", type=int, default=0)
    parser.add_argument("--threads", "-t", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/measurements"))
    return parser.parse_args()


def main() -> None:
    options = parse()
    try:
        file = default_store().resolve(options.model).path
    except PeltonError as error:
        raise SystemExit(str(error)) from None
    assert file is not None, "a synthetic model is no file that a peer could read"
    samples: list[Sample] = []
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        print(f"load is {load:.1f}: other programs disturb these figures", file=sys.stderr)
    for number in range(options.rounds):
        ours = run_pelton(options, file, number)
        samples += ours
        if options.peer_python:
            samples += run_peer(options, file, ours)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    shown = ["PATH" if argument == options.peer_python else argument for argument in sys.argv[1:]]
    write(samples, options.out, " ".join(["python benchmarks/latency.py", *shown]), load)
    print("\n".join(table(samples)))


if __name__ == "__main__":
    main()
