"""Q6_K: 256 codes of 6 bits, a signed byte scale for 16 of them. Layout: ggml block_q6_K, 210 bytes."""

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

_LAYOUT = np.dtype([("low", "u1", (128,)), ("high", "u1", (64,)), ("scales", "i1", (16,)), ("scale", "<f2")])


def _unpack(blocks: U8) -> tuple[U8, F32, F32 | None]:
    record = fields(blocks, _LAYOUT)
    codes = split_bits(record["low"].reshape(-1, 2, 64), 4)
    codes |= split_bits(record["high"].reshape(-1, 2, 32), 2) << np.uint8(4)
    with np.errstate(all="ignore"):
        scales = record["scale"].astype(np.float32)[:, None] * record["scales"].astype(np.float32)
    return codes, scales, None


def _encode(blocks: F32) -> U8:
    groups = blocks.reshape(-1, 16, 16)
    wanted = (signed_peak(groups) / np.float32(-32))[..., 0]
    scale = f16_away(np.abs(wanted).max(axis=1, keepdims=True) / np.float32(127))
    scales = nearest(divided(wanted, scale), -127, 127)
    step = (scale * scales.astype(np.float32))[..., None]
    codes = nearest(divided(groups, step) + 32, 0, 63).astype(np.uint8).reshape(-1, 256)
    record = np.zeros(len(blocks), _LAYOUT)
    record["low"] = join_bits(codes & np.uint8(15), 4, 2)
    record["high"] = join_bits(codes >> np.uint8(4), 2, 2)
    record["scales"] = scales
    record["scale"] = scale[:, 0]
    return as_bytes(record)


Q6_K = affine_format(
    "Q6_K",
    _LAYOUT,
    Panel(bits=8, group=16, offset=32, scale_dtype="f32", has_minimum=False),
    _unpack,
    _encode,
    error_bound=0.036,  # a whole step of max / 32 opposite the peak, and the rounding of the byte scale
)
