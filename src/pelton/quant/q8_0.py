"""Q8_0: 32 signed bytes and one half-precision scale. Layout: ggml block_q8_0, 34 bytes."""

from __future__ import annotations

import numpy as np

from .affine import affine_format, as_bytes, divided, f16_away, fields, nearest
from .format import F32, U8, Panel

_BLOCK = 32
_LAYOUT = np.dtype([("scale", "<f2"), ("codes", "u1", (_BLOCK,))])


def _unpack(blocks: U8) -> tuple[U8, F32, F32 | None]:
    record = fields(blocks, _LAYOUT)
    # Flipping the sign bit adds 128: a signed byte becomes an unsigned code with offset 128.
    return record["codes"] ^ np.uint8(0x80), record["scale"].astype(np.float32)[:, None], None


def _encode(blocks: F32) -> U8:
    scale = f16_away(np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127))
    record = np.zeros(len(blocks), _LAYOUT)
    record["scale"] = scale[:, 0]
    record["codes"] = nearest(divided(blocks, scale), -127, 127).astype(np.int8).view(np.uint8)
    return as_bytes(record)


Q8_0 = affine_format(
    "Q8_0",
    _LAYOUT,
    Panel(bits=8, group=_BLOCK, offset=128, scale_dtype="f16", has_minimum=False),
    _unpack,
    _encode,
    error_bound=0.0041,  # half a step of max / 127, the step rounded up
    block=_BLOCK,
)
