"""Q4_K and Q5_K: 256 codes of 4 or 5 bits; 6-bit scale and minimum for 32 of them.

Layouts: ggml block_q4_K (144 bytes) and block_q5_K (176). The eight scales and minimums share
twelve bytes: bytes 0..3 hold scales 0..3 and bytes 4..7 minimums 0..3 in their low six bits;
bytes 8..11 hold the low halves of scales 4..7 (low nibble) and minimums 4..7 (high nibble),
whose top two bits fill the first eight bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .affine import affine_format, as_bytes, divided, f16_away, fields, join_bits, nearest, split_bits
from .format import F32, U8, Format, Panel


def _split_scales(packed: U8) -> tuple[U8, U8]:
    """uint8 [N, 12] -> scales and minimums, uint8 [N, 8] each, 0..63."""
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    low_six, top_two = np.uint8(0x3F), np.uint8(0x30)
    scales = [first & low_six, (third & np.uint8(15)) | ((first >> np.uint8(2)) & top_two)]
    minimums = [second & low_six, (third >> np.uint8(4)) | ((second >> np.uint8(2)) & top_two)]
    return np.concatenate(scales, axis=1), np.concatenate(minimums, axis=1)


def _join_scales(scales: NDArray[np.int32], minimums: NDArray[np.int32]) -> U8:
    """The inverse of _split_scales."""
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = minimums[:, :4] | ((minimums[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 15) | ((minimums[:, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=1).astype(np.uint8)


def _layout(bits: int) -> np.dtype[np.void]:
    high = [("high", "u1", (32,))] if bits == 5 else []
    head = [("scale", "<f2"), ("minimum", "<f2"), ("scales", "u1", (12,))]
    return np.dtype([*head, *high, ("low", "u1", (128,))])


def _encode(blocks: F32, bits: int, layout: np.dtype[np.void]) -> U8:
    highest = (1 << bits) - 1
    groups = blocks.reshape(-1, 8, 32)
    depth = np.maximum(-groups.min(axis=2), np.float32(0))
    depth_unit = f16_away(depth.max(axis=1, keepdims=True) / np.float32(63))
    depths = nearest(divided(depth, depth_unit), 0, 63)
    floor = depth_unit * depths.astype(np.float32)
    wanted = np.maximum(groups.max(axis=2) + floor, np.float32(0)) / np.float32(highest)
    unit = f16_away(wanted.max(axis=1, keepdims=True) / np.float32(63))
    scales = nearest(divided(wanted, unit), 0, 63)
    step = (unit * scales.astype(np.float32))[..., None]
    codes = nearest(divided(groups + floor[..., None], step), 0, highest).astype(np.uint8).reshape(-1, 256)
    record = np.zeros(len(blocks), layout)
    record["scale"] = unit[:, 0]
    record["minimum"] = depth_unit[:, 0]
    record["scales"] = _join_scales(scales, depths)
    record["low"] = join_bits(codes & np.uint8(15), 4, 4)
    if bits == 5:
        record["high"] = join_bits(codes >> np.uint8(4), 1, 1)
    return as_bytes(record)


def _format(name: str, bits: int, error_bound: float) -> Format:
    layout = _layout(bits)

    def unpack(blocks: U8) -> tuple[U8, F32, F32 | None]:
        record = fields(blocks, layout)
        codes = split_bits(record["low"].reshape(-1, 4, 32), 4)
        if bits == 5:
            codes |= split_bits(record["high"][:, None, :], 1) << np.uint8(4)
        scales, depths = _split_scales(record["scales"])
        with np.errstate(all="ignore"):
            steps = record["scale"].astype(np.float32)[:, None] * scales.astype(np.float32)
            floors = record["minimum"].astype(np.float32)[:, None] * depths.astype(np.float32)
        return codes, steps, -floors

    def encode(blocks: F32) -> U8:
        return _encode(blocks, bits, layout)

    panel = Panel(4 if bits == 4 else 8, 32, 0, "f32", True)
    return affine_format(name, layout, panel, unpack, encode, error_bound)


# Half a step of at most 2 max / 15 or 2 max / 31, and the rounding of the 6-bit minimum and scale.
Q4_K = _format("Q4_K", 4, 0.07)
Q5_K = _format("Q5_K", 5, 0.035)
