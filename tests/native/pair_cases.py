"""Weights in pairs of blocks and their products in NumPy: what defines csrc/kernels/linear_pairs.cpp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pelton import _native
from pelton.quant.format import F32

from .linear_cases import POOL

I64 = NDArray[np.int64]
PAIR = np.dtype(
    [("codes", "i1", 64), ("scales", "i2", 4), ("sums", "i2", 2), ("starts", "u4", 2), ("unit", "f4")]
)


@dataclass(frozen=True)
class PairWeight:
    """codes, scales and minimums of blocks in rising order, [N, K], [N, blocks]; unit [N], powers of two."""

    packed: _native.PackedWeight
    plain: _native.PackedWeight
    segment: int
    codes: I64
    scales: I64
    minimums: I64
    unit: F32


def pair_weight(codes: NDArray[np.uint8], scales: F32, minimums: F32 | None, segment: int) -> PairWeight:
    """From codes [N, K]; scales and minimums [N, blocks], of float16; without any codes count from 8."""
    outputs, inputs = codes.shape
    has = minimums is not None
    layout = _native.WeightLayout.block(4, 32, 0 if has else 8, "f16", has)
    plain = _native.PackedWeight(outputs, inputs, layout)
    plain.pack_codes(0, codes, scales, minimums, POOL)
    centred = np.zeros(scales.shape) if minimums is None else minimums + 8 * scales.astype(np.float64)
    packed = plain.in_pairs(segment, POOL)
    return PairWeight(packed, plain, segment, codes.astype(np.int64), *stored(scales, centred, segment))


def stored(scales: F32, centred: NDArray[np.float64], segment: int) -> tuple[I64, I64, F32]:
    """Integers and unit of each row: the least unit with which no total can leave 32 bits.

    centred are the minimums of code - 8.
    """
    rows = [_stored_row(np.abs(s), np.abs(m), segment) for s, m in zip(scales, centred, strict=True)]
    unit = np.array(rows, np.float32)
    with np.errstate(invalid="ignore"):
        numbers = [np.nan_to_num(np.rint(a / unit[:, None].astype(np.float64) * f)) for a, f in
                   ((scales, 2.0**15), (centred, 2.0**10))]  # fmt: skip
    return numbers[0].astype(np.int64), numbers[1].astype(np.int64), unit


def _stored_row(scales: NDArray[np.float64], minimums: NDArray[np.float64], segment: int) -> float:
    if not (np.isfinite(scales).all() and np.isfinite(minimums).all()):
        return float("nan")
    largest = scales.max() or 2.0**-24
    unit = 2.0 ** np.floor(np.log2(largest))
    while True:
        s, m = scales / unit * 2.0**15, minimums / unit * 2.0**10
        part, total = 8 * 127 * 32 + 1, 127 * 32 * 8 + 1
        terms = s / 4 * part + m * total
        most = max(terms[i : i + 2 * segment].sum() for i in range(0, len(terms), 2 * segment))
        most += 2 * segment * (2 * part + total)  # rounding
        if max(s.max(), m.max()) <= 32767 and most <= 2**31 - 1:
            return float(unit)
        unit *= 2.0


def random_weight(
    outputs: int, inputs: int, segment: int, seed: int = 0, has_minimum: bool = True
) -> PairWeight:
    random = np.random.default_rng(seed + outputs * 1000 + inputs)
    codes = random.integers(0, 16, (outputs, inputs), dtype=np.uint8)
    scales = (random.random((outputs, inputs // 32)) * 0.1 + 1e-3).astype(np.float16)
    minimums = (-8 * scales + random.standard_normal(scales.shape) * 0.1).astype(np.float16)
    found = minimums.astype(np.float32) if has_minimum else None
    return pair_weight(codes, scales.astype(np.float32), found, segment)


@dataclass(frozen=True)
class Rounded:
    """Rows: codes [T, K], scales [T, K / 16], units [T, blocks]."""

    codes: I64
    scales: I64
    unit: F32


def rounded(x: F32, segment: int, fine: bool) -> Rounded:
    """What quantize_pairs makes of rows [T, K] of ordinary or broken numbers, and of zeros."""
    rows, inputs = x.shape
    codes, scales = np.zeros((rows, inputs), np.int64), np.zeros((rows, inputs // 16), np.int64)
    units = np.ones((rows, inputs // 32), np.float32)
    with np.errstate(all="ignore"):
        for row in range(rows):
            for start in range(0, inputs, 64 * segment):
                part = slice(start, min(start + 64 * segment, inputs))
                found = _rounded_segment(x[row, part], fine)
                codes[row, part], scales[row, part.start // 16 : part.stop // 16] = found[:2]
                units[row, part.start // 32 : part.stop // 32] = found[2]
    return Rounded(codes, scales, units)


def _rounded_segment(x: F32, fine: bool) -> tuple[I64, I64, np.float32]:
    nothing = np.zeros(len(x), np.int64), np.zeros(len(x) // 16, np.int64)
    largest = np.abs(x).max()
    if not largest < 2.0**100:
        return *nothing, np.float32(np.nan)
    if largest < 2.0**-80:
        return *nothing, np.float32(1)
    seventh = np.float32(1 / 127)
    unit = np.float32(2.0 ** (np.floor(np.log2(largest * seventh)) - 12))
    of = np.abs(x.reshape(-1, 16 if fine else 32)).max(axis=1) * seventh
    scales = np.maximum(np.ceil(of * (np.float32(1) / unit)), 1)
    scales = scales if fine else np.repeat(scales, 2)
    inverse = np.float32(1) / (scales.astype(np.float32) * unit)
    return np.rint(x * np.repeat(inverse, 16)).astype(np.int64), scales.astype(np.int64), unit


def defined_product(weight: PairWeight, x: Rounded, fine: bool) -> F32:
    """Bit for bit what kernels compute, [T, N]; asserts that no total leaves 32 bits."""
    rows, outputs = len(x.codes), len(weight.codes)
    blocks = weight.codes.shape[1] // 32
    halves = x.codes.reshape(rows, blocks, 2, 16)
    sums = np.einsum("tbhi,nbhi->tnbh", halves, weight.codes.reshape(outputs, blocks, 2, 16) - 8)
    scales = x.scales.reshape(rows, blocks, 2)
    acc = np.zeros((rows, outputs), np.float32)
    for start in range(0, blocks, 2 * weight.segment):
        end = min(start + 2 * weight.segment, blocks)
        total = np.zeros((rows, outputs), np.int64)
        for first in range(start, end, 2):
            total += _pair(weight, sums, scales, halves, first, end, fine)
        for block in range(start, end):
            scaled = (halves[:, block].sum(axis=2) * scales[:, block]).sum(axis=1)
            total += ((scaled + 512) >> 10)[:, None] * weight.minimums[:, block]
        assert np.all(np.abs(total) < 2**31)
        with np.errstate(invalid="ignore"):
            acc = acc + total.astype(np.float32) * x.unit[:, start, None]
    return np.asarray(acc * weight.unit, np.float32)


def _pair(weight: PairWeight, sums: I64, scales: I64, halves: I64, first: int, end: int, fine: bool) -> I64:
    """Of blocks first and first + 1, which may be missing: parts by their scales."""
    total = np.zeros(sums.shape[:2], np.int64)
    for part in ([0], [1]) if fine else ([0, 1],):
        above = sums[:, :, first, part].sum(axis=2) + (halves[:, first, part].sum(axis=(1, 2)) % 2)[:, None]
        below = sums[:, :, first + 1, part].sum(axis=2) if first + 1 < end else np.zeros_like(above)
        above = above - (below < 0)  # what a negative lower half takes from the upper one
        for block, value in ((first, above), (first + 1, below)):
            if block < end:
                by = weight.scales[:, block] * scales[:, block, part[0], None]
                total += value * ((by + 2**14) >> 15)
    return total
