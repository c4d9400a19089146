"""Goodput of pelton's server and its peers' under the same clients, at rising load until each breaks the SLO.

    python benchmarks/serving.py --home FOLDER [--only pelton OpenVINO] [--env NAME=FOLDER] [--out FOLDER]

ShareGPT prompts x 96 tokens arrive as a Poisson process; the objectives are TTFT p90 < 2 s and TPOT p90 <
100 ms. Servers run one at a time, as benchmarks/peers/servers.py starts them; the client shares their
processors. The rate rises by a third a step. Writes serving.csv (each server at each rate), serving.md and
serving.png. A server that cannot be had is a named hole.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from environments import CannotInstall
from files import Files
from run import environments_of, machine_name
from servers import SERVERS, serving

from pelton.traffic.arrivals import Arrivals
from pelton.traffic.client import Target
from pelton.traffic.report import Objectives, Summary, summarize
from pelton.traffic.run import drive
from pelton.traffic.workload import Session, WorkloadShape, make_workload
from pelton.weights.store import default_store

SLO = Objectives(ttft=2000.0, tpot=100.0)
FIRST_RATE, FACTOR, MOST_RATE = 1.0, 4 / 3, 64.0
RUN_SECONDS = 12.0
LEAST_SESSIONS = 16
TOKENS = 96


@dataclass(frozen=True)
class Point:
    """One server at one rate (sessions a second)."""

    server: str
    file: str
    rate: float
    summary: Summary

    @property
    def holds(self) -> bool:
        return SLO.held_by(self.summary)

    def row(self, day: str, machine: str) -> list[object]:
        s = self.summary
        figures = (s.goodput, s.output_throughput, s.ttft.p50, s.ttft.p90, s.tpot.p50, s.tpot.p90)
        place = [day, machine, self.server, self.file, f"{self.rate:.2f}"]
        return [*place, s.completed, s.failed, *(f"{x:.2f}" for x in figures), self.holds]


COLUMNS = (
    *("date", "machine", "server", "file", "rate", "completed", "failed", "goodput_rps", "output_tps"),
    *("ttft_p50_ms", "ttft_p90_ms", "tpot_p50_ms", "tpot_p90_ms", "slo_holds"),
)


def climb(target: Target, server: str, file: str, all_sessions: list[Session], first: float) -> list[Point]:
    """Rising rates until the objectives break; every rate asks prompts that were not asked before."""
    points: list[Point] = []
    rate, used = first, 8
    asyncio.run(drive(target, all_sessions[:used], Arrivals()))  # warm up: first touches of memory
    while rate <= MOST_RATE:
        count = max(LEAST_SESSIONS, round(rate * RUN_SECONDS))
        sessions = all_sessions[used : used + count]
        used += count
        exchanges, elapsed = asyncio.run(drive(target, sessions, Arrivals(rate=rate, seed=1)))
        point = Point(server, file, rate, summarize(exchanges, elapsed, SLO))
        points.append(point)
        s = point.summary
        print(
            f"{server} at {rate:.2f}/s: goodput {s.goodput:.2f}/s, {s.output_throughput:.0f} tokens/s,"
            f" TTFT p90 {s.ttft.p90:.0f} ms, TPOT p90 {s.tpot.p90:.1f} ms, {s.failed} failed",
            flush=True,
        )
        if not point.holds:
            break
        rate *= FACTOR
    return points


def best(points: list[Point], server: str) -> float:
    """The goodput that a server keeps up within the objectives."""
    return max((p.summary.goodput for p in points if p.server == server and p.holds), default=0.0)


def table(points: list[Point], holes: dict[str, str]) -> str:
    own = best(points, "pelton")
    lines = [
        "| server | file | goodput within the SLO, req/s | output tokens/s there | pelton's ratio |",
        "|---|---|--:|--:|--:|",
    ]
    for server in SERVERS:
        mine = [p for p in points if p.server == server]
        if server in holes:
            lines.append(f"| {server} | | -: {holes[server]} | | |")
        elif mine:
            value = best(points, server)
            there = max((p.summary.output_throughput for p in mine if p.holds), default=0.0)
            ratio = f"{own / value:.1f}" if value else "-"
            lines.append(f"| {server} | {mine[0].file} | {value:.2f} | {there:.0f} | {ratio} |")
    return "\n".join(lines) + "\n"


def draw(points: list[Point], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for server in SERVERS:
        mine = [p for p in points if p.server == server]
        if mine:
            axes.plot([p.rate for p in mine], [p.summary.goodput for p in mine], marker="o", label=server)
    axes.axline((0, 0), slope=1, color="#a0aec0", linestyle=":", label="all requests good")
    axes.set_xlabel("requests offered a second")
    axes.set_ylabel("requests a second within the SLO")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where environments and files are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/measurements"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--only", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--threads", "-t", type=int, default=2)
    parser.add_argument("--first-rate", type=float, default=FIRST_RATE)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    environments = environments_of(options)
    path = default_store().resolve(options.model).path
    assert path is not None
    files = Files(environments.home, path.resolve(), environments)
    sessions = make_workload("sharegpt", WorkloadShape(sessions=8000, output_tokens=TOKENS))
    points: list[Point] = []
    holes: dict[str, str] = {}
    for server in options.only:
        try:
            with serving(server, files, options.threads) as running:
                target = Target(running.url, running.name, extra={"ignore_eos": True})
                points += climb(target, server, SERVERS[server][0], sessions, options.first_rate)
        except CannotInstall as hole:
            holes[server] = str(hole)[:120]
    day, machine = date.today().isoformat(), machine_name(options.threads)
    with (options.out / "serving.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(point.row(day, machine) for point in points)
    heading = f"{day}, {machine}; ShareGPT prompts x {TOKENS} tokens, TTFT p90 < 2 s, TPOT p90 < 100 ms\n\n"
    (options.out / "serving.md").write_text(heading + table(points, holes))
    draw(points, options.out / "serving.png")
    print(table(points, holes))


if __name__ == "__main__":
    main()
