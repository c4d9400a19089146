"""The 32-weight formats of 4 and 5 bits: Q4_0, Q4_1, Q5_0, Q5_1.

Layouts: ggml block_q4_0 (18 bytes), block_q4_1 (20), block_q5_0 (22), block_q5_1 (24). The
`_0` kinds are symmetric around code 8 or 16; the `_1` kinds add a minimum. Code i lies in
the low half of byte i for i < 16 and in the high half of byte i - 16 after that; the fifth
bits are bit i of a 32-bit word.
"""

from __future__ import annotations

import numpy as np

from .affine import (
    affine_format,
    as_bytes,
    divided,
    f16_away,
    f16_nearest,
    fields,
    join_bits,
    nearest,
    signed_peak,
    split_bits,
)
from .format import F32, U8, Format, Panel

_BLOCK = 32


def _layout(bits: int, has_minimum: bool) -> np.dtype[np.void]:
    parts: list[tuple[str, str] | tuple[str, str, tuple[int]]] = [("scale", "<f2")]
    if has_minimum:
        parts.append(("minimum", "<f2"))
    if bits == 5:
        parts.append(("high", "u1", (4,)))
    parts.append(("low", "u1", (16,)))
    return np.dtype(parts)


def _quantized(blocks: F32, bits: int, has_minimum: bool) -> tuple[U8, F32, F32 | None]:
    """Codes uint8 [N, 32], scale float32 [N, 1] and minimum float32 [N, 1] or None."""
    highest = (1 << bits) - 1
    if not has_minimum:
        # The peak takes the code of largest magnitude, -8 or -16, so the scale may be negative.
        offset = 1 << (bits - 1)
        scale = f16_away(signed_peak(blocks) / np.float32(-offset))
        return nearest(divided(blocks, scale) + offset, 0, highest).astype(np.uint8), scale, None
    minimum = f16_nearest(blocks.min(axis=1, keepdims=True))
    scale = f16_away((blocks.max(axis=1, keepdims=True) - minimum) / np.float32(highest))
    return nearest(divided(blocks - minimum, scale), 0, highest).astype(np.uint8), scale, minimum


def _format(name: str, bits: int, has_minimum: bool, error_bound: float) -> Format:
    layout = _layout(bits, has_minimum)

    def unpack(blocks: U8) -> tuple[U8, F32, F32 | None]:
        record = fields(blocks, layout)
        codes = split_bits(record["low"][:, None, :], 4)
        if bits == 5:
            codes |= np.unpackbits(record["high"], axis=1, bitorder="little") << np.uint8(4)
        minimum = record["minimum"].astype(np.float32)[:, None] if has_minimum else None
        return codes, record["scale"].astype(np.float32)[:, None], minimum

    def encode(blocks: F32) -> U8:
        codes, scale, minimum = _quantized(blocks, bits, has_minimum)
        record = np.zeros(len(blocks), layout)
        record["scale"] = scale[:, 0]
        if minimum is not None:
            record["minimum"] = minimum[:, 0]
        if bits == 5:
            record["high"] = np.packbits(codes >> np.uint8(4), axis=1, bitorder="little")
        record["low"] = join_bits(codes & np.uint8(15), 4, 1)
        return as_bytes(record)

    offset = 0 if has_minimum else 1 << (bits - 1)
    panel = Panel(4 if bits == 4 else 8, _BLOCK, offset, "f16", has_minimum)
    return affine_format(name, layout, panel, unpack, encode, error_bound, _BLOCK)


# Symmetric: the weight opposite the peak may want one code more than there is, a whole step
# of max / 8 or max / 16. With a minimum: half a step of at most 2 max / 15 or 2 max / 31.
Q4_0 = _format("Q4_0", 4, False, 0.126)
Q4_1 = _format("Q4_1", 4, True, 0.0675)
Q5_0 = _format("Q5_0", 5, False, 0.0632)
Q5_1 = _format("Q5_1", 5, True, 0.0328)
