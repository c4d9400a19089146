"""Q3_K: 256 codes of 3 bits, a 6-bit signed scale for 16 of them. Layout: ggml block_q3_K, 110 bytes.

The third bits stand apart ("high": bit j of byte l belongs to code 32 j + l). Scale i has its
low four bits in byte i % 8 and its high two in byte 8 + i % 4; all are stored plus 32.
"""

from __future__ import annotations

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

_LAYOUT = np.dtype([("high", "u1", (32,)), ("low", "u1", (64,)), ("scales", "u1", (12,)), ("scale", "<f2")])


def _unpack(blocks: U8) -> tuple[U8, F32, F32 | None]:
    record = fields(blocks, _LAYOUT)
    codes = split_bits(record["low"].reshape(-1, 2, 32), 2)
    codes |= split_bits(record["high"][:, None, :], 1) << np.uint8(2)
    packed = record["scales"]
    stored = split_bits(packed[:, None, :8], 4) | (split_bits(packed[:, None, 8:], 2) << np.uint8(4))
    with np.errstate(all="ignore"):
        scales = record["scale"].astype(np.float32)[:, None] * (stored.astype(np.float32) - np.float32(32))
    return codes, scales, None


def _encode(blocks: F32) -> U8:
    groups = blocks.reshape(-1, 16, 16)
    wanted = (signed_peak(groups) / np.float32(-4))[..., 0]
    unit = f16_away(np.abs(wanted).max(axis=1, keepdims=True) / np.float32(31))
    scales = nearest(divided(wanted, unit), -31, 31)
    step = (unit * scales.astype(np.float32))[..., None]
    codes = nearest(divided(groups, step) + 4, 0, 7).astype(np.uint8).reshape(-1, 256)
    stored = (scales + 32).astype(np.uint8)
    record = np.zeros(len(blocks), _LAYOUT)
    record["high"] = join_bits(codes >> np.uint8(2), 1, 1)
    record["low"] = join_bits(codes & np.uint8(3), 2, 2)
    record["scales"] = np.concatenate(
        [join_bits(stored & np.uint8(15), 4, 1), join_bits(stored >> np.uint8(4), 2, 1)], axis=1
    )
    record["scale"] = unit[:, 0]
    return as_bytes(record)


Q3_K = affine_format(
    "Q3_K",
    _LAYOUT,
    Panel(bits=4, group=16, offset=4, scale_dtype="f32", has_minimum=False),
    _unpack,
    _encode,
    error_bound=0.27,  # a whole step of max / 4 opposite the peak, and the rounding of the 6-bit scale
)
