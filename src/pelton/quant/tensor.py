"""A named weight: raw bytes in some format, mapped from a file or made in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .format import F32, U8, Format


@dataclass(frozen=True)
class Tensor:
    """`shape` is in NumPy order (the last axis is contiguous): a linear weight is [outputs, inputs].

    `data` is uint8 [bytes], usually a read-only view of a mapped file.
    """

    name: str
    format: Format
    shape: tuple[int, ...]
    data: U8

    def __post_init__(self) -> None:
        expected = self.num_rows * self.format.row_bytes(self.shape[-1])
        if self.data.dtype != np.uint8 or self.data.ndim != 1 or self.data.size != expected:
            raise ValueError(f"{self.name}: {self.data.size} bytes where {self.shape} needs {expected}")

    @property
    def num_rows(self) -> int:
        return int(np.prod(self.shape[:-1], dtype=np.int64))

    @property
    def num_bytes(self) -> int:
        return int(self.data.size)

    def row_bytes(self) -> U8:
        """uint8 [rows, bytes per row], a view."""
        return self.data.reshape(self.num_rows, -1)

    def dequantize(self) -> F32:
        """float32 of `shape`, a fresh array."""
        blocks = self.data.reshape(-1, self.format.block_bytes)
        return self.format.decode(blocks).reshape(self.shape)

    def rows(self, start: int, end: int) -> Tensor:
        """Rows start..end of a two-dimensional tensor as a view."""
        part = self.row_bytes()[start:end].reshape(-1)
        return Tensor(f"{self.name}[{start}:{end}]", self.format, (end - start, *self.shape[1:]), part)
