"""When clients ask: an open loop with random gaps, or a closed one that keeps a number of requests open."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """rate: sessions a second, infinite for all at once. burstiness: shape of the gamma-distributed gaps,
    1 for a Poisson process, less for bursts (as vLLM's benchmark). concurrency: sessions under way at most,
    None for no bound: with an infinite rate this is a closed loop. Raises ConfigError.
    """

    rate: float = math.inf
    burstiness: float = 1.0
    concurrency: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ConfigError("must be above 0", field="request_rate", value=self.rate)
        if not 0 < self.burstiness <= 1000:
            raise ConfigError("must be above 0, at most 1000", field="burstiness", value=self.burstiness)
        if self.concurrency is not None and not 1 <= self.concurrency <= 65536:
            raise ConfigError("must be from 1 to 65536", field="max_concurrency", value=self.concurrency)

    def moments(self, count: int) -> list[float]:
        """Seconds from the start at which each of `count` sessions begins, ascending."""
        if math.isinf(self.rate):
            return [0.0] * count
        random = np.random.Generator(np.random.Philox(self.seed))
        gaps = random.gamma(self.burstiness, 1.0 / (self.rate * self.burstiness), count)
        return [float(moment) for moment in np.cumsum(gaps) - gaps[0]]
