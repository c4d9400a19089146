"""IQ4_NL and IQ4_XS: 4-bit indices into sixteen unevenly spaced values, denser near zero.

Layouts: ggml block_iq4_nl (32 weights, 18 bytes) and block_iq4_xs (256 weights, 136 bytes,
6-bit scales stored plus 32 for 32 weights each). The sixteen values are kvalues_iq4nl.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .affine import (
    affine_format,
    as_bytes,
    divided,
    f16_away,
    fields,
    join_bits,
    nearest,
    signed_peak,
    split_bits,
)
from .format import F32, U8, Panel

_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_TABLE = tuple(value + 128 for value in _VALUES)
_BORDERS = np.array([(a + b) / 2 for a, b in pairwise(_VALUES)], dtype=np.float32)

_NL_LAYOUT = np.dtype([("scale", "<f2"), ("codes", "u1", (16,))])
_XS_LAYOUT = np.dtype([("scale", "<f2"), ("high", "<u2"), ("low", "u1", (4,)), ("codes", "u1", (128,))])
_XS_SHIFTS = np.arange(0, 16, 2, dtype=np.uint16)


def _nearest_index(values: F32) -> U8:
    return np.searchsorted(_BORDERS, values).astype(np.uint8)


def _unpack_nl(blocks: U8) -> tuple[U8, F32, F32 | None]:
    record = fields(blocks, _NL_LAYOUT)
    return split_bits(record["codes"][:, None, :], 4), record["scale"].astype(np.float32)[:, None], None


def _encode_nl(blocks: F32) -> U8:
    scale = f16_away(signed_peak(blocks) / np.float32(-127))
    record = np.zeros(len(blocks), _NL_LAYOUT)
    record["scale"] = scale[:, 0]
    record["codes"] = join_bits(_nearest_index(divided(blocks, scale)), 4, 1)
    return as_bytes(record)


def _unpack_xs(blocks: U8) -> tuple[U8, F32, F32 | None]:
    record = fields(blocks, _XS_LAYOUT)
    low = split_bits(record["low"][:, :, None], 4)
    high = ((record["high"][:, None] >> _XS_SHIFTS) & np.uint16(3)).astype(np.uint8)
    stored = low | (high << np.uint8(4))
    with np.errstate(all="ignore"):
        scales = record["scale"].astype(np.float32)[:, None] * (stored.astype(np.float32) - np.float32(32))
    return split_bits(record["codes"].reshape(-1, 8, 16), 4), scales, None


def _encode_xs(blocks: F32) -> U8:
    groups = blocks.reshape(-1, 8, 32)
    wanted = (signed_peak(groups) / np.float32(-127))[..., 0]
    unit = f16_away(np.abs(wanted).max(axis=1, keepdims=True) / np.float32(31))
    scales = nearest(divided(wanted, unit), -31, 31)
    step = (unit * scales.astype(np.float32))[..., None]
    stored = (scales + 32).astype(np.uint8)
    record = np.zeros(len(blocks), _XS_LAYOUT)
    record["scale"] = unit[:, 0]
    record["low"] = join_bits(stored & np.uint8(15), 4, 4)
    record["high"] = ((stored >> np.uint8(4)).astype(np.uint16) << _XS_SHIFTS).sum(axis=1, dtype=np.uint16)
    record["codes"] = join_bits(_nearest_index(divided(groups, step)).reshape(-1, 256), 4, 8)
    return as_bytes(record)


# Opposite the peak the table ends at 113 of 127; its widest gap, 24, costs half of that.
IQ4_NL = affine_format(
    "IQ4_NL", _NL_LAYOUT, Panel(4, 32, 128, "f16", False, _TABLE), _unpack_nl, _encode_nl, 0.112, block=32
)
IQ4_XS = affine_format(
    "IQ4_XS", _XS_LAYOUT, Panel(4, 32, 128, "f32", False, _TABLE), _unpack_xs, _encode_xs, 0.13
)
