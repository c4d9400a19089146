"""Frequencies of rotary position embeddings under every scaling in use.

All functions return one float a rotated pair; `theta` is the base, `dim` the rotated part of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def plain(theta: float, dim: int) -> F64:
    """theta^(-2i/dim) (Su et al. 2021, arXiv:2104.09864)."""
    return np.asarray(theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim))


def llama3(frequencies: F64, factor: float, low: float, high: float, original: int) -> F64:
    """Llama 3.1: waves longer than original/low are slowed by `factor`, shorter than original/high kept."""
    turns = original * frequencies / (2 * math.pi)  # over the original context
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return np.asarray((1 - smooth) * frequencies / factor + smooth * frequencies)


def yarn(
    theta: float,
    dim: int,
    *,
    factor: float,
    original: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> F64:
    """YaRN (Peng et al. 2023, arXiv:2309.00071): pairs between the two betas blend both speeds."""

    def pair_turning(times: float) -> float:
        return dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_turning(beta_fast), pair_turning(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0.0, 1.0)
    frequencies = plain(theta, dim)
    return np.asarray(frequencies / factor * ramp + frequencies * (1 - ramp))


def yarn_magnitude(factor: float, strength: float = 1.0) -> float:
    """How much YaRN sharpens attention: 0.1 * strength * ln(factor) + 1."""
    return 1.0 if factor <= 1.0 else 0.1 * strength * math.log(factor) + 1.0


def longrope(theta: float, dim: int, factors: Sequence[float]) -> F64:
    """LongRoPE (Ding et al. 2024, arXiv:2402.13753): each pair is slowed by its own searched factor."""
    return np.asarray(plain(theta, dim) / np.asarray(factors, dtype=np.float64))


def longrope_magnitude(factor: float, original: int) -> float:
    """sqrt(1 + ln(factor) / ln(original)), factor being the extension of the context."""
    return 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
