"""What a run comes to, in the columns of vLLM's serving benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from .client import Exchange

PERCENTILES = (50, 90, 99)
_OBJECTIVES = ("ttft", "tpot", "e2el")


@dataclass(frozen=True)
class Spread:
    """Mean and percentiles of one figure, in milliseconds; all 0 where nothing was measured."""

    mean: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        if not seconds:
            return cls(0.0, 0.0, 0.0, 0.0)
        values = np.array(seconds) * 1e3
        return cls(float(values.mean()), *(float(np.percentile(values, p)) for p in PERCENTILES))


@dataclass(frozen=True)
class Objectives:
    """Service-level objectives in milliseconds; None asks nothing. A request is good that meets them all."""

    ttft: float | None = None
    tpot: float | None = None
    e2el: float | None = None

    def met_by(self, exchange: Exchange) -> bool:
        seconds = {"ttft": exchange.ttft, "tpot": exchange.tpot or 0.0, "e2el": exchange.end}
        limits = ((name, getattr(self, name)) for name in _OBJECTIVES)
        return exchange.succeeded and all(
            limit is None or seconds[name] * 1e3 <= limit for name, limit in limits
        )

    def held_by(self, summary: Summary) -> bool:
        """Whether nine of ten requests meet each objective and none failed."""
        measured = {"ttft": summary.ttft.p90, "tpot": summary.tpot.p90, "e2el": summary.e2el.p90}
        within = all(
            getattr(self, name) is None or measured[name] <= getattr(self, name) for name in _OBJECTIVES
        )
        return within and summary.failed == 0


def parse_objectives(texts: Sequence[str]) -> Objectives:
    """`["ttft:2000", "tpot:100"]` in milliseconds. Raises ConfigError."""
    limits: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition(":")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if name not in _OBJECTIVES or not value > 0:
            raise ConfigError("must be ttft:MS, tpot:MS or e2el:MS", field="goodput", value=text)
        limits[name] = value
    return Objectives(**limits)


@dataclass(frozen=True)
class Summary:
    """One run. Rates are per second of its duration; cached_tokens: prompt tokens the server did not
    compute, None where it does not say."""

    completed: int
    failed: int
    duration: float
    input_tokens: int
    cached_tokens: int | None
    output_tokens: int
    peak_concurrent: int
    good: int
    ttft: Spread
    tpot: Spread
    itl: Spread
    e2el: Spread

    @property
    def request_throughput(self) -> float:
        return self.completed / self.duration

    @property
    def goodput(self) -> float:
        return self.good / self.duration

    @property
    def output_throughput(self) -> float:
        return self.output_tokens / self.duration

    @property
    def total_throughput(self) -> float:
        return (self.input_tokens + self.output_tokens) / self.duration

    @property
    def cached_share(self) -> float:
        """Share of the prompt tokens that came from the server's cache, as far as it says."""
        return (self.cached_tokens or 0) / self.input_tokens if self.input_tokens else 0.0


def summarize(exchanges: Sequence[Exchange], duration: float, objectives: Objectives) -> Summary:
    """Figures of all exchanges; a failed one counts in `failed` and nowhere else."""
    done = [exchange for exchange in exchanges if exchange.succeeded]
    told = [e.cached_tokens for e in done if e.cached_tokens is not None]
    gaps = [later - earlier for e in done for earlier, later in zip(e.arrivals, e.arrivals[1:], strict=False)]
    return Summary(
        completed=len(done),
        failed=len(exchanges) - len(done),
        duration=max(duration, 1e-9),
        input_tokens=sum(e.prompt_tokens for e in done),
        cached_tokens=sum(told) if told else None,
        output_tokens=sum(e.completion_tokens for e in done),
        peak_concurrent=_most_at_once(exchanges),
        good=sum(objectives.met_by(e) for e in done),
        ttft=Spread.of([e.ttft for e in done]),
        tpot=Spread.of([e.tpot for e in done if e.tpot is not None]),
        itl=Spread.of(gaps),
        e2el=Spread.of([e.end for e in done]),
    )


def _most_at_once(exchanges: Sequence[Exchange]) -> int:
    changes = sorted([(e.start, 1) for e in exchanges] + [(e.start + e.end, -1) for e in exchanges])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
