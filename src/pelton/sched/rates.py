"""What steps cost here, learnt while running: what decisions about time are made of."""

from __future__ import annotations

from dataclasses import dataclass

MEMORY = 0.98
"""What a step counts for one step later: the last 50 or so rule."""
_PRIOR = 4.0
_FIRST_COPY = 4e6


@dataclass
class StepRates:
    """seconds = fixed + row * rows, by least squares over recent steps; and the speed of copying KV.

    Begins with what a 135M model takes on two cores (2 ms and 0.3 ms a row, copies of 4 GB/s), which a few
    steps outweigh. No clock is read here: whoever runs the steps says what they took.
    """

    fixed: float = 0.002
    row: float = 0.0003
    copy_bytes_per_second: float = 4e9

    def __post_init__(self) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        for rows in (1, 128):  # the prior as two steps seen before
            self._add(rows, self.seconds(rows), _PRIOR, 1.0)
        self._copied, self._copying = _FIRST_COPY, _FIRST_COPY / self.copy_bytes_per_second

    def seconds(self, rows: int) -> float:
        """Time of one step."""
        return self.fixed + self.row * rows

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a step."""
        self._add(rows, seconds, 1.0, MEMORY)
        weight, x, xx, y, xy = self._sums
        spread = weight * xx - x * x
        if spread > 1e-9 * weight * xx:  # steps of one size alone say nothing about the slope
            self.row = max((weight * xy - x * y) / spread, 1e-9)
        self.fixed = max((y - self.row * x) / weight, 1e-9)

    def observe_copy(self, num_bytes: int, seconds: float) -> None:
        """Learn from a copy of KV blocks."""
        self._copied = MEMORY * self._copied + num_bytes
        self._copying = MEMORY * self._copying + seconds
        self.copy_bytes_per_second = self._copied / max(self._copying, 1e-9)

    def _add(self, rows: int, seconds: float, count: float, kept: float) -> None:
        """Weighted sums of 1, x, x^2, y, xy."""
        w, x, xx, y, xy = self._sums
        self._sums = (
            kept * w + count,
            kept * x + count * rows,
            kept * xx + count * rows * rows,
            kept * y + count * seconds,
            kept * xy + count * rows * seconds,
        )
