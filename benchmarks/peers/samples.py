"""Figures of a run: one Sample for each, written as CSV, and what is computed from them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median

PELTON = "pelton"
SPEED = "tokens/s"
LOAD, MEMORY, PERPLEXITY = "load to first token", "peak memory", "perplexity"
UNITS = {LOAD: "s", MEMORY: "MiB", PERPLEXITY: ""}


@dataclass(frozen=True)
class Sample:
    """One figure of one engine. `value` is None for a hole, of which `reason` says why.

    limit: what the machine allowed in that round, 0 where that is not known or makes no sense.
    """

    date: str
    machine: str
    threads: int
    model: str
    engine: str
    file: str
    version: str
    round: int
    test: str
    unit: str
    value: float | None
    limit: float = 0.0
    reason: str = ""


def write_csv(samples: Sequence[Sample], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Sample)])
        writer.writerows(astuple(sample) for sample in samples)


def rows_of(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """Engine and file of each row, in the order in which they ran."""
    return list(dict.fromkeys((sample.engine, sample.file) for sample in samples))


def tests_of(samples: Sequence[Sample]) -> list[str]:
    return list(dict.fromkeys(sample.test for sample in samples))


def values(samples: Sequence[Sample], row: tuple[str, str], test: str) -> list[float]:
    chosen = [s.value for s in samples if (s.engine, s.file) == row and s.test == test]
    return [value for value in chosen if value is not None]


def middle(samples: Sequence[Sample], row: tuple[str, str], test: str) -> float | None:
    found = values(samples, row, test)
    return median(found) if found else None


def reason(samples: Sequence[Sample], row: tuple[str, str], test: str) -> str:
    """Why a cell is empty."""
    told = [s.reason for s in samples if (s.engine, s.file) == row and s.test == test and s.reason]
    return told[-1] if told else "not run"


def advantage(samples: Sequence[Sample], row: tuple[str, str], test: str) -> float | None:
    """How many times better pelton is than this row; both by their medians. None where one has none."""
    ours = next((r for r in rows_of(samples) if r[0] == PELTON), None)
    theirs = middle(samples, row, test)
    mine = middle(samples, ours, test) if ours is not None else None
    if mine is None or theirs is None or min(mine, theirs) <= 0.0:
        return None
    is_speed = test not in UNITS
    return mine / theirs if is_speed else theirs / mine


def limit(samples: Sequence[Sample], test: str) -> float:
    """The highest measured: a machine that was disturbed in one round did not become slower by it."""
    return max((s.limit for s in samples if s.test == test), default=0.0)
