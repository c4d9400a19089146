"""Plain floats: F32, F16 (IEEE 754 binary16) and BF16 (the upper half of a binary32)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .format import F32, U8, Format

U16 = NDArray[np.uint16]


def _decode_f32(blocks: U8) -> F32:
    stored: F32 = np.ascontiguousarray(blocks).view("<f4")
    return stored.astype(np.float32)


def _encode_f32(blocks: F32) -> U8:
    return blocks.astype(np.float32, order="C").view(np.uint8)


def _decode_f16(blocks: U8) -> F32:
    return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)


def _encode_f16(blocks: F32) -> U8:
    if blocks.size and float(np.abs(np.where(np.isfinite(blocks), blocks, 0)).max()) >= 65520.0:
        raise ValueError("a weight is too large for F16")
    return np.ascontiguousarray(blocks.astype("<f2")).view(np.uint8)


def widen_bf16(upper: U16) -> F32:
    """bfloat16, as the bits of each number, to float32: exact."""
    widened: F32 = (upper.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return widened


def narrow_bf16(x: F32) -> U16:
    """The bits of the nearest bfloat16, ties to even; a NaN stays one."""
    word = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    odd = (word >> np.uint32(16)) & np.uint32(1)
    # Wraps only for NaN payloads, which the next line replaces.
    rounded = (word + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    quiet = (word >> np.uint32(16)) | np.uint32(0x0040)
    return np.asarray(np.where(np.isnan(x), quiet, rounded).astype(np.uint16))


def _decode_bf16(blocks: U8) -> F32:
    return widen_bf16(np.ascontiguousarray(blocks).view("<u2"))


def _encode_bf16(blocks: F32) -> U8:
    return np.ascontiguousarray(narrow_bf16(blocks).astype("<u2")).view(np.uint8)


FLOAT32 = Format("F32", 1, 4, _decode_f32, _encode_f32, 0.0)
FLOAT16 = Format("F16", 1, 2, _decode_f16, _encode_f16, 2.0**-11)
BFLOAT16 = Format("BF16", 1, 2, _decode_bf16, _encode_bf16, 2.0**-8)
