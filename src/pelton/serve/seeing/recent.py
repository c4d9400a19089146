"""What the last seconds were like: for a page that is looked at, not for monitoring (see metrics)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from time import monotonic

SECONDS = 10
_FIRST_TOKENS = 256


class Recent:
    """Tokens generated in the last seconds and the times to first token of the last requests."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._tokens: deque[tuple[int, int]] = deque(maxlen=SECONDS + 1)  # (second, tokens in it)
        self._waits: deque[tuple[float, float]] = deque(maxlen=_FIRST_TOKENS)

    def generated(self, now: float, tokens: int) -> None:
        second = int(now)
        if self._tokens and self._tokens[-1][0] == second:
            tokens += self._tokens.pop()[1]
        self._tokens.append((second, tokens))

    def first_token(self, now: float, wait: float) -> None:
        """A request's first token came `wait` seconds after it did."""
        self._waits.append((now, wait))

    @property
    def tokens_per_second(self) -> list[int]:
        """Tokens in each of the last whole seconds, the latest last."""
        second = int(self._clock())
        found = dict(self._tokens)
        return [found.get(at, 0) for at in range(second - SECONDS, second)]

    def wait_quantiles(self, quantiles: tuple[float, ...], seconds: float = 60.0) -> list[float] | None:
        """Times to first token of requests of the last `seconds`: the least that so large a share of them
        did not exceed. None if there were none."""
        since = self._clock() - seconds
        waits = sorted(wait for at, wait in self._waits if at >= since)
        if not waits:
            return None
        return [waits[max(0, ceil(quantile * len(waits)) - 1)] for quantile in quantiles]
