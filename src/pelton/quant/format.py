"""What a number format is: a block layout, its decoder and encoder, and how far off the encoder may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Panel:
    """How the native kernels hold a format after the load-time repack, losing nothing.

    Weight value = scale * (code - offset) + minimum, where `code` is an unsigned integer of
    `bits` bits (4 or 8), and scale and minimum hold for `group` consecutive inputs. With a
    `table` (16 entries) the 4-bit index picks the code from it, and there is no minimum. "f16" scales are of
    groups of 32.
    """

    bits: int
    group: int
    offset: int
    scale_dtype: str  # "f16" where the file's scale is one, "f32" where it is a product
    has_minimum: bool
    table: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Format:
    """One number format.

    decode: uint8 [N, block_bytes] -> float32 [N, block], exactly the values the bytes mean.
    encode: float32 [N, block] -> uint8 [N, block_bytes], deterministic.
    unpack: uint8 [N, block_bytes] -> (codes uint8 [N, block], scales float32 [N, block // group],
        minimums float32 or None, same shape) in the terms of `panel`; None for plain floats.
    error_bound: max |decode(encode(x)) - x| <= error_bound * max |x| of the block.
    """

    name: str
    block: int
    block_bytes: int
    decode: Callable[[U8], F32]
    encode: Callable[[F32], U8]
    error_bound: float
    panel: Panel | None = None
    unpack: Callable[[U8], tuple[U8, F32, F32 | None]] | None = None

    @property
    def bits_per_weight(self) -> float:
        return self.block_bytes * 8 / self.block

    def row_bytes(self, width: int) -> int:
        """Bytes of one row of `width` elements; width must be a multiple of the block."""
        if width % self.block:
            raise ValueError(f"{self.name} rows need a multiple of {self.block} elements, not {width}")
        return width // self.block * self.block_bytes
