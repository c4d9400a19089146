"""Decides when the output head gets a coarse copy, and copies it a little at a time.

Decoding one greedy sequence reads all weights once a token, and with a large vocabulary the head is a third
of them; all that is wanted of it is where its greatest product is. A copy in 4 bits, with a proven bound on
its error, leaves a few hundred outputs to be multiplied exactly (csrc/core/head_screen.h has the arithmetic).
This is what FEXIPRO (Li, Chan, Yiu, Mamoulis, SIGMOD 2017) does for recommendations: inner products in the
directions in which queries are long, coarse integers, and a bound from Cauchy and Schwarz for the rest. Here
the directions are found from the inputs themselves.

A process that decodes little never pays for it: the copy begins after the 128 rows that the directions are
found from, and takes some milliseconds of each of the next passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .._native import SCREEN_DIRECTIONS, SCREEN_SAMPLES, HeadScreen, PackedWeight, ThreadPool

LEAST_BYTES = 8 << 20
"""A smaller head stays in a cache, where reading half of it gains nothing."""

_BYTES_A_PASS = 1 << 20  # of the head, copied in about 4 ms by two threads


@dataclass
class Screening:
    """The screen of one executor's head, once a program with one is compiled."""

    pool: ThreadPool
    least_bytes: int = LEAST_BYTES
    screen: HeadScreen | None = field(default=None, init=False)
    _rows_a_pass: int = field(default=0, init=False)
    _finished: bool = field(default=False, init=False)

    def of(self, head: PackedWeight) -> HeadScreen | None:
        """The head's screen, or None where one would be of no use."""
        if head.num_bytes < self.least_bytes or head.inputs % 32:
            return None
        if self.screen is None:
            self.screen = HeadScreen(head)
            self._rows_a_pass = max(16, _BYTES_A_PASS * head.outputs // head.num_bytes)
        return self.screen

    def advance(self) -> None:
        """Before a pass that wants the greatest logits only: do the next piece of what is left to do."""
        screen = self.screen
        if self._finished or screen is None or screen.num_samples < SCREEN_SAMPLES:
            return
        if screen.has_directions:
            self._finished = screen.build(self._rows_a_pass, self.pool)
            return
        samples = screen.samples()
        if np.isfinite(samples).all():
            screen.set_directions(principal_directions(samples), self.pool)
        else:  # a model that computes NaN has nothing to gain
            self._finished = True


def principal_directions(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Orthonormal rows [SCREEN_DIRECTIONS, width] that hold most of the length of samples [n, width]."""
    _, _, directions = np.linalg.svd(samples.astype(np.float64), full_matrices=False)
    return np.ascontiguousarray(directions[:SCREEN_DIRECTIONS], dtype=np.float32)
