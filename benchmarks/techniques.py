"""One figure for each technique of the registry, on the default model: what `pelton techniques` shows.

    python benchmarks/techniques.py [--only NAME ...] [--model smollm2-135m] [--out FILE.csv]

Each case measures the technique against the plain way, both in this process, turn by turn. A row replaces
the row of the same name; others stay.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from measured import Measured
from technique_cases import CASES

from pelton.cost.advice import observe
from pelton.techniques import COLUMNS, TECHNIQUES

BUSY_LOAD = 0.7


@dataclass(frozen=True)
class Row:
    """A line of techniques.csv."""

    name: str
    measured: Measured
    machine: str

    def cells(self) -> tuple[str, ...]:
        m = self.measured
        command = f"python benchmarks/techniques.py --only {self.name}"
        today = date.today().isoformat()
        return (self.name, m.metric, f"{m.value:.4g}", m.unit, m.baseline, today, self.machine, command)


def read(path: Path) -> Mapping[str, tuple[str, ...]]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return {row[0]: tuple(row) for row in rows[1:]}


def write(path: Path, rows: Mapping[str, tuple[str, ...]]) -> None:
    """In the registry's order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows[name] for name in CASES if name in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=Path("docs/measurements/techniques.csv"))
    options = parser.parse_args()
    missing = {name for row in TECHNIQUES for name in (row.benchmark, row.loss) if name} - set(CASES)
    if missing:
        raise SystemExit(f"no case measures {', '.join(sorted(missing))}")
    if os.getloadavg()[0] > BUSY_LOAD:
        print(f"load is {os.getloadavg()[0]:.1f}: other programs disturb these figures", file=sys.stderr)
    rows = dict(read(options.out))
    for name in options.only:
        around = observe(len(os.sched_getaffinity(0)))
        machine = f"{around.processor}, {around.threads} threads, {around.isa}, load {around.load:.1f}"
        row = Row(name, CASES[name](options.model), machine)
        rows[name] = row.cells()
        write(options.out, rows)
        print(", ".join(row.cells()[:5]))


if __name__ == "__main__":
    main()
