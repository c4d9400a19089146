"""A named weight, and a tensor: one whose bytes, in some format, are at hand."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from .format import F32, U8, Format


@dataclass(frozen=True)
class Weight(ABC):
    """What is known of a weight without its bytes, and how to come by them.

    `shape` is in NumPy order (the last axis is contiguous): a linear weight is [outputs, inputs].
    """

    name: str
    format: Format
    shape: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def num_bytes(self) -> int:
        return self.num_rows * self.format.row_bytes(self.shape[-1])

    @abstractmethod
    def load(self) -> Tensor:
        """The weight with its bytes, which may be made anew each time: whoever is done with them lets go."""


@dataclass(frozen=True)
class Tensor(Weight):
    """`data` is uint8 [bytes], usually a read-only view of a mapped file."""

    data: U8

    def __post_init__(self) -> None:
        if self.data.dtype != np.uint8 or self.data.ndim != 1 or self.data.size != self.num_bytes:
            raise ValueError(f"{self.name}: {self.data.size} bytes where {self.shape} needs {self.num_bytes}")

    def load(self) -> Tensor:
        return self

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
