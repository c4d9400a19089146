"""Q2_K: 256 codes of 2 bits; 4-bit scale and minimum for 16 of them. Layout: ggml block_q2_K, 84 bytes."""

from __future__ import annotations

import numpy as np

from .affine import affine_format, as_bytes, divided, f16_away, fields, join_bits, nearest, split_bits
from .format import F32, U8, Panel

_LAYOUT = np.dtype(
    [("scales", "u1", (16,)), ("codes", "u1", (64,)), ("scale", "<f2"), ("minimum", "<f2")],
)


def _unpack(blocks: U8) -> tuple[U8, F32, F32 | None]:
    record = fields(blocks, _LAYOUT)
    packed = record["scales"]
    with np.errstate(all="ignore"):
        scales = record["scale"].astype(np.float32)[:, None] * (packed & np.uint8(15)).astype(np.float32)
        depths = record["minimum"].astype(np.float32)[:, None] * (packed >> np.uint8(4)).astype(np.float32)
    return split_bits(record["codes"].reshape(-1, 2, 32), 2), scales, -depths


def _encode(blocks: F32) -> U8:
    groups = blocks.reshape(-1, 16, 16)
    depth = np.maximum(-groups.min(axis=2), np.float32(0))
    depth_unit = f16_away(depth.max(axis=1, keepdims=True) / np.float32(15))
    depths = nearest(divided(depth, depth_unit), 0, 15)
    floor = depth_unit * depths.astype(np.float32)
    wanted = np.maximum(groups.max(axis=2) + floor, np.float32(0)) / np.float32(3)
    unit = f16_away(wanted.max(axis=1, keepdims=True) / np.float32(15))
    scales = nearest(divided(wanted, unit), 0, 15)
    step = (unit * scales.astype(np.float32))[..., None]
    codes = nearest(divided(groups + floor[..., None], step), 0, 3).astype(np.uint8).reshape(-1, 256)
    record = np.zeros(len(blocks), _LAYOUT)
    record["scales"] = scales | (depths << 4)
    record["codes"] = join_bits(codes, 2, 2)
    record["scale"] = unit[:, 0]
    record["minimum"] = depth_unit[:, 0]
    return as_bytes(record)


Q2_K = affine_format(
    "Q2_K",
    _LAYOUT,
    Panel(bits=4, group=16, offset=0, scale_dtype="f32", has_minimum=True),
    _unpack,
    _encode,
    error_bound=0.38,  # half a step of at most 2 max / 3, and the rounding of the 4-bit minimum
)
