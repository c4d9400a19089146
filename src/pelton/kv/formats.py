"""How numbers are kept as keys and values: one row of KV_FORMATS a format.

A block holds the keys of 32 positions [D / run, 32, run] and their values [32 / run, D, run]: `run` numbers
lie together because an instruction multiplies so many at once. Queries and the weights of values are rounded
as the format wants them; these definitions are what the native executor is tested against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ..quant.floats import narrow_bf16, widen_bf16
from ..types import BLOCK_SIZE

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Numbers = NDArray[np.generic]
CHUNK_POSITIONS = 256
"""Weights of values are rounded over the largest of so many logical positions."""
_SMALLEST = np.float32(1e-30)
_MOST_WEIGHT = np.float32(65535)


@dataclass(frozen=True)
class KVFormat:
    """Keys and values as IEEE floats, up to the largest there is.

    name: as settings know it. number: the type of one number. array: that of an arena's elements, of `run`
    numbers or of single bytes. largest: what greater numbers become; NaN becomes the lowest. What is stored
    is always finite: what a block's next owner does not overwrite is masked by a weight of zero. multiple,
    most: what a head's size must be a multiple of, and its bound. scale_rows: rows of 32 bytes behind a
    head's numbers, for a float32 scale a position.
    """

    name: str
    number: np.dtype[np.generic]
    array: np.dtype[np.generic]
    largest: float
    run: int = 1
    multiple: int = 1
    most: int = 1 << 30
    scale_rows: int = 0

    def fits(self, head_dim: int) -> bool:
        """Whether heads of this size can be kept so."""
        return head_dim % self.multiple == 0 and head_dim <= self.most

    def key_shape(self, head_dim: int) -> tuple[int, int]:
        """Elements of an arena for one head's keys of a block."""
        return (head_dim + self.scale_rows) // self.packed, BLOCK_SIZE

    def value_shape(self, head_dim: int) -> tuple[int, int]:
        """The same of values."""
        if self.scale_rows:
            return self.key_shape(head_dim)
        return BLOCK_SIZE // self.packed, head_dim

    @property
    def packed(self) -> int:
        """Numbers in an element of the arrays."""
        return self.array.itemsize // self.number.itemsize

    def key_places(self, head_dim: int) -> I64:
        """Where the numbers of a key lie among a head's: [32 positions, D]."""
        position, element = np.ogrid[:BLOCK_SIZE, :head_dim]
        return np.asarray((element // self.run * BLOCK_SIZE + position) * self.run + element % self.run)

    def value_places(self, head_dim: int) -> I64:
        """The same of values."""
        position, element = np.ogrid[:BLOCK_SIZE, :head_dim]
        return np.asarray((position // self.run * head_dim + element) * self.run + position % self.run)

    def encode_keys(self, keys: F32) -> tuple[Numbers, F32 | None]:
        """Keys [.., D] as numbers, and their scales [..] where scale_rows."""
        return self.encode_values(keys)

    def decode_keys(self, numbers: Numbers, scales: F32 | None) -> F32:
        """Keys [.., D] as queries are multiplied by them."""
        return self.decode_values(numbers, scales)

    def encode_values(self, values: F32) -> tuple[Numbers, F32 | None]:
        """Values [.., D] as numbers, and their scales [..] where scale_rows."""
        return self._finite(values).astype(self.number), None

    def decode_values(self, numbers: Numbers, scales: F32 | None) -> F32:
        """Values [.., D] as weights are multiplied by them."""
        return numbers.astype(np.float32)

    def round_queries(self, queries: F32) -> F32:
        """Queries [.., D] as keys are multiplied by them."""
        return queries

    def round_weights(self, weights: F32, values: F32, first: int) -> F32:
        """Weights [K, H/K, N] as the values [N, K, D] of logical positions from `first` on are multiplied by
        them."""
        return weights

    def _finite(self, x: F32) -> F32:
        largest = np.float32(self.largest)
        return np.asarray(np.clip(np.nan_to_num(x, nan=-largest), -largest, largest))


class BrainPairs(KVFormat):
    """bfloat16 in pairs, as uint32 with the first in the low half."""

    def encode_values(self, values: F32) -> tuple[Numbers, F32 | None]:
        return narrow_bf16(self._finite(values)), None

    def decode_values(self, numbers: Numbers, scales: F32 | None) -> F32:
        return widen_bf16(numbers.astype(np.uint16))

    def round_queries(self, queries: F32) -> F32:
        return widen_bf16(narrow_bf16(queries))

    def round_weights(self, weights: F32, values: F32, first: int) -> F32:
        scale = np.maximum(_largest_of_chunk(weights, first), np.finfo(np.float32).tiny)
        return np.asarray(widen_bf16(narrow_bf16(weights / scale)) * scale, dtype=np.float32)


class Bytes(KVFormat):
    """A scale a head and position, and codes -127..127 as bytes: of keys 128 more, of values with a sign.

    Keys and queries are turned by a Walsh-Hadamard matrix before they are rounded: products stay what they
    are, but no single element takes the steps from the others ("QuaRot: Outlier-Free 4-Bit Inference in
    Rotated LLMs", Ashkboos et al. 2024). Weights times their values' scales are rounded to 16 bits.
    """

    def encode_keys(self, keys: F32) -> tuple[Numbers, F32 | None]:
        codes, scales = _byte_codes(self._finite(turned(keys)))
        return (codes + np.float32(128)).astype(np.uint8), scales

    def decode_keys(self, numbers: Numbers, scales: F32 | None) -> F32:
        assert scales is not None
        return _turned_back((numbers.astype(np.float32) - np.float32(128)) * scales[..., None])

    def encode_values(self, values: F32) -> tuple[Numbers, F32 | None]:
        codes, scales = _byte_codes(self._finite(values))
        return codes.astype(np.int8).view(np.uint8), scales

    def decode_values(self, numbers: Numbers, scales: F32 | None) -> F32:
        assert scales is not None
        return np.asarray(numbers.view(np.int8).astype(np.float32) * scales[..., None])

    def round_queries(self, queries: F32) -> F32:
        codes, scales = _byte_codes(turned(queries))
        return _turned_back(codes * scales[..., None])

    def round_weights(self, weights: F32, values: F32, first: int) -> F32:
        scales = (np.abs(values).max(axis=-1) / np.float32(127)).T[:, None, :]  # [K, 1, N]
        products = weights * scales
        largest = _largest_of_chunk(products, first)
        usable = largest > _SMALLEST
        step = np.where(usable, largest, 1) / _MOST_WEIGHT
        codes = np.where(usable, np.rint(products / step), 0)
        return np.asarray(codes * step / np.where(scales > 0, scales, 1), dtype=np.float32)


def turned(x: F32) -> F32:
    """x [.., D] times the Walsh-Hadamard matrix of the largest power of two that divides D."""
    size = x.shape[-1] & -x.shape[-1]
    distance = 1
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite or NaN is bounded afterwards
        while distance < size:
            pairs = x.reshape(*x.shape[:-1], -1, 2, distance)
            low, high = pairs[..., 0, :], pairs[..., 1, :]
            x = np.stack([low + high, low - high], axis=-2).reshape(x.shape)
            distance *= 2
    return x


def _turned_back(x: F32) -> F32:
    size = x.shape[-1] & -x.shape[-1]
    return np.asarray(turned(x) / np.float32(size))


def _byte_codes(x: F32) -> tuple[F32, F32]:
    """Codes -127..127 of x [.., D], and scales [..]: NaN where a number is not finite."""
    largest = np.abs(x).max(axis=-1)
    finite, usable = np.isfinite(largest), largest > _SMALLEST
    inverse = np.where(finite & usable, np.float32(127) / np.where(usable, largest, 1), 0).astype(np.float32)
    codes = np.rint(np.where(finite[..., None], x, 0) * inverse[..., None])
    scales = np.where(finite, np.where(usable, largest / np.float32(127), 0), np.nan)
    return codes.astype(np.float32), scales.astype(np.float32)


def _largest_of_chunk(x: F32, first: int) -> F32:
    """For each of x [.., N], of logical positions first, first + 1, ..., the largest of its chunk."""
    starts = np.arange(-(first % CHUNK_POSITIONS), x.shape[-1], CHUNK_POSITIONS).clip(0)
    counts = np.diff([*starts, x.shape[-1]])
    return np.asarray(np.repeat(np.maximum.reduceat(x, starts, axis=-1), counts, axis=-1))


_ROWS = (
    Bytes(
        "int8",
        np.dtype(np.uint8),
        np.dtype(np.uint8),
        1e30,  # so that sums over a head are finite
        run=4,
        multiple=16,
        most=1024,
        scale_rows=4,
    ),
    BrainPairs("bfloat16", np.dtype(np.uint16), np.dtype(np.uint32), 3.3895314e38, run=2, multiple=2),
    KVFormat("float16", np.dtype(np.float16), np.dtype(np.float16), 65504.0),
    KVFormat("float32", np.dtype(np.float32), np.dtype(np.float32), float(np.finfo(np.float32).max)),
)
KV_FORMATS: Mapping[str, KVFormat] = MappingProxyType({row.name: row for row in _ROWS})
