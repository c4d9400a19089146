"""What every block format shares: bit fields, half-precision scales, and the decoder a panel implies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .format import F32, U8, Format, Panel

Unpack = Callable[[U8], tuple[U8, F32, F32 | None]]

_F16_MAX = 65504.0


def fields(blocks: U8, layout: np.dtype[np.void]) -> NDArray[np.void]:
    """The blocks uint8 [N, block_bytes] seen through a packed record layout, [N]; a view where possible."""
    return np.ascontiguousarray(blocks).view(layout)[:, 0]


def as_bytes(records: NDArray[np.void]) -> U8:
    """Records [N] of a packed layout as uint8 [N, block_bytes]."""
    return records.view(np.uint8).reshape(len(records), records.dtype.itemsize)


def split_bits(packed: U8, bits: int) -> U8:
    """uint8 [N, G, L] -> uint8 [N, G * (8 // bits) * L]: first the lowest bits of all L bytes, then the next.

    Every GGML code array is of this kind, with its own G and L.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    count, groups, width = packed.shape
    codes: U8 = (packed[:, :, None, :] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(count, groups * width * 8 // bits)


def join_bits(codes: U8, bits: int, groups: int) -> U8:
    """The inverse of split_bits: codes uint8 [N, K] -> packed uint8 [N, K * bits // 8]."""
    count, size = codes.shape
    parts = codes.reshape(count, groups, 8 // bits, size * bits // 8 // groups)
    packed: U8 = parts[:, :, 0, :].copy()
    for index in range(1, 8 // bits):
        packed |= parts[:, :, index, :] << np.uint8(index * bits)
    return packed.reshape(count, size * bits // 8)


def f16_away(values: F32) -> F32:
    """Each value rounded away from zero to half precision, so that codes scaled by it need no clipping.

    Raises ValueError where a value is beyond half precision.
    """
    if values.size and float(np.abs(values).max()) > _F16_MAX:
        raise ValueError("a weight is too large for this format's half-precision scale")
    near = values.astype(np.float16)
    short = np.abs(near.astype(np.float32)) < np.abs(values)
    away = np.nextafter(near, np.copysign(np.float16(_F16_MAX), near))
    return np.where(short, away, near).astype(np.float32)


def f16_nearest(values: F32) -> F32:
    """Each value rounded to half precision. Raises ValueError where one is beyond it."""
    if values.size and float(np.abs(values).max()) > _F16_MAX:
        raise ValueError("a weight is too large for this format's half-precision minimum")
    return values.astype(np.float16).astype(np.float32)


def divided(values: F32, scales: F32) -> F32:
    """values / scales, with zero where the scale is zero. Shapes broadcast."""
    safe = np.where(scales == 0, np.float32(1), scales)
    return np.where(scales == 0, np.float32(0), values / safe).astype(np.float32)


def nearest(values: F32, lowest: int, highest: int) -> NDArray[np.int32]:
    """The nearest integers within lowest..highest."""
    return np.clip(np.rint(values), lowest, highest).astype(np.int32)


def signed_peak(groups: F32) -> F32:
    """The element of largest magnitude along the last axis, which is kept with length one."""
    where = np.abs(groups).argmax(axis=-1, keepdims=True)
    return np.take_along_axis(groups, where, axis=-1)


def panel_decoder(panel: Panel, unpack: Unpack) -> Callable[[U8], F32]:
    """scale * (code - offset) + minimum, in float32, in this order: the value the native kernels mean too."""
    values = np.arange(256, dtype=np.float32)
    if panel.table is not None:
        values = np.array(panel.table, dtype=np.float32)
    values = values - np.float32(panel.offset)

    def decode(blocks: U8) -> F32:
        codes, scales, minimums = unpack(blocks)
        out: F32 = values[codes].reshape(*scales.shape, panel.group)
        # A file may hold infinite or NaN scales: they pass through, as in every other reader.
        with np.errstate(all="ignore"):
            out *= scales[..., None]
            if minimums is not None:
                out += minimums[..., None]
        return out.reshape(codes.shape)

    return decode


def finite_only(encode: Callable[[F32], U8]) -> Callable[[F32], U8]:
    """An encoder that refuses infinities and NaN with ValueError: no block format can hold them."""

    def checked(blocks: F32) -> U8:
        if not np.isfinite(blocks).all():
            raise ValueError("block formats hold finite weights only")
        return encode(np.ascontiguousarray(blocks, dtype=np.float32))

    return checked


def affine_format(
    name: str,
    layout: np.dtype[np.void],
    panel: Panel,
    unpack: Unpack,
    encode: Callable[[F32], U8],
    error_bound: float,
    block: int = 256,
) -> Format:
    """A Format whose decoder follows from its panel. `layout` is the packed record of one block."""
    return Format(
        name=name,
        block=block,
        block_bytes=layout.itemsize,
        decode=panel_decoder(panel, unpack),
        encode=finite_only(encode),
        error_bound=error_bound,
        panel=panel,
        unpack=unpack,
    )
