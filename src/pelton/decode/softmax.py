"""Softmax in whole numbers from float32 logits, over one row at a time.

A token's weight is round(2^40 * e^(logit - peak)). Whole numbers add up exactly, so no sum over them
depends on its order: NumPy and the native core (csrc/kernels/sample.h) agree on every decision that is
made with them. e^x is written out in float32 additions and multiplications for the same reason; it is
within 2 units in the last place. What is 28 below the peak weighs nothing: 1e-12 of the peak.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .processor import REFUSED, Logits

Weights = NDArray[np.int64]

PEAK_WEIGHT = 1 << 40
"""The weight of the most likely token; 2^22 of them still sum to less than 2^63."""

_LOWEST = np.float32(-30)  # e^-30 rounds to nothing
_LOG2_E = np.float32(1.44269504)
# ln 2 in two parts; the first has 10 bits, so that its products with small whole numbers are exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(2.12194440e-4)
# Minimax fit of (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2, highest power first.
_POLYNOMIAL = tuple(np.float32(c) for c in (0.001381454, 0.008368745, 0.04166839, 0.16666521, 0.49999994))


def candidates(logits: Logits) -> NDArray[np.intp] | None:
    """Token ids that are not refused, ascending; None if none is refused, which spares a gather."""
    open_tokens = logits > REFUSED
    return None if bool(open_tokens.all()) else np.flatnonzero(open_tokens)


def softmax_weights(logits: Logits, peak: float) -> Weights:
    """Probabilities of `logits` [C] as whole numbers up to one factor: 2^40 for `peak`, the row's largest.

    Logits of +infinity share all the weight, the limit of letting them grow together.
    """
    if peak == np.inf:
        shared: Weights = (logits == np.float32(np.inf)).astype(np.int64) << 40
        return shared
    with np.errstate(over="ignore"):
        below = logits - np.float32(peak)
    powers = _power_of_e(np.maximum(below, _LOWEST, out=below)).astype(np.float64)
    powers *= PEAK_WEIGHT
    weights: Weights = np.rint(powers, out=powers).astype(np.int64)
    return weights


def _power_of_e(x: Logits) -> Logits:
    """e^x for -30 <= x <= 0: 2^n times a polynomial of the rest."""
    n = np.rint(x * _LOG2_E)
    r = (x - n * _LN2_HIGH) + n * _LN2_LOW
    p = np.full_like(r, _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        p *= r
        p += coefficient
    p *= r * r
    p += r
    p += np.float32(1)
    power_of_two = ((n.astype(np.int32) + 127) << 23).view(np.float32)
    power: Logits = np.multiply(p, power_of_two, out=p)
    return power
