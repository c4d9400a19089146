"""What a run of a trace comes to: latencies, completion of calls and programs, fairness."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from .simulator import CallResult, Simulated


@dataclass(frozen=True)
class Figures:
    """Seconds, over the calls that finished. job: arrival to end of a call. program: first arrival to last
    end of a program; a call that names none is one of its own. jain: Jain's index of the tenants' weighted
    service while all had work, 1 is equal; spread: (most - least) / mean of it. on_time: share of deadlines
    met. computed: prompt rows run, cached ones left out, those run again counted."""

    scheduler: str
    finished: int
    refused: int
    seconds: float
    tokens_per_second: float
    ttft_p50: float
    ttft_p99: float
    tpot_p50: float
    tpot_p99: float
    job_mean: float
    job_p50: float
    job_p99: float
    program_mean: float
    program_p50: float
    program_p99: float
    jain: float
    spread: float
    on_time: float
    computed: int
    preemptions: int
    swapped: int


def figures_of(run: Simulated, weights: Mapping[str, float] | None = None) -> Figures:
    """All figures of one run."""
    done = [result for result in run.results if result.finished is not None]
    first = [r.first - r.arrival for r in done if r.first is not None]
    each = [
        (r.finished - r.first) / (len(r.call.answer) - 1)
        for r in done
        if r.finished is not None and r.first is not None and len(r.call.answer) > 1
    ]
    jobs = [r.finished - r.arrival for r in done if r.finished is not None]
    programs = _program_times(done)
    jain, spread = fairness(run.contended, weights or {})
    return Figures(
        run.scheduler,
        len(done),
        len(run.results) - len(done),
        run.seconds,
        run.generated / run.seconds if run.seconds else 0.0,
        *_middle_and_tail(first),
        *_middle_and_tail(each),
        float(np.mean(jobs)) if jobs else 0.0,
        *_middle_and_tail(jobs),
        float(np.mean(programs)) if programs else 0.0,
        *_middle_and_tail(programs),
        jain,
        spread,
        _on_time(run.results),
        run.prompt_rows,
        sum(result.preemptions for result in run.results),
        run.swapped,
    )


def fairness(service: Mapping[str, float], weights: Mapping[str, float]) -> tuple[float, float]:
    """Jain's index, and (most - least) / mean, of service divided by weight; 1 and 0 for fewer than two."""
    shares = np.array([value / weights.get(name, 1.0) for name, value in service.items()])
    if len(shares) < 2 or not shares.any():
        return 1.0, 0.0
    jain = float(shares.sum() ** 2 / (len(shares) * (shares**2).sum()))
    return jain, float((shares.max() - shares.min()) / shares.mean())


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Rows that all have the same names."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def cells(figures: Figures) -> dict[str, object]:
    """Figures by name, rounded to what they mean."""
    values = asdict(figures)
    return {f.name: round(v, 4) if isinstance(v := values[f.name], float) else v for f in fields(figures)}


def _program_times(done: Sequence[CallResult]) -> list[float]:
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}
    for index, result in enumerate(done):
        assert result.finished is not None
        name = result.call.terms.program or f"call {index}"
        begun[name] = min(begun.get(name, result.arrival), result.arrival)
        ended[name] = max(ended.get(name, 0.0), result.finished)
    return [ended[name] - begun[name] for name in begun]


def _middle_and_tail(values: Sequence[float]) -> tuple[float, float]:
    """Percentiles 50 and 99."""
    if not values:
        return 0.0, 0.0
    return float(np.percentile(values, 50)), float(np.percentile(values, 99))


def _on_time(results: Sequence[CallResult]) -> float:
    due = [r for r in results if r.call.terms.deadline is not None]
    met = sum(
        r.finished is not None
        and r.call.terms.deadline is not None
        and r.finished - r.arrival <= r.call.terms.deadline
        for r in due
    )
    return met / len(due) if due else 1.0
