"""The memory that keys and values live in: fixed-size blocks of 32 positions, shared by all sequences."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, MemoryBudgetError
from ..plan import KVShape
from ..types import BLOCK_SIZE, I32, Batch
from .formats import F32, I64, KV_FORMATS, KVFormat, Numbers

# MAP_NORESERVE, which Python names from 3.13 on: the kernel joins neighbouring arenas to one mapping, and
# would refuse to fork a process in which that is larger than the memory, though little of it is used.
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0


@dataclass(frozen=True)
class KVLayout:
    """What one block holds: keys [L, K, D, 32] (lanes over positions) and values [L, K, 32, D], of a format.

    bfloat16 lies in pairs of neighbouring elements of a key, of neighbouring positions of values: keys
    [L, K, D / 2, 32], values [L, K, 16, D]. int8 lies in fours, with scales behind: both [L, K, D + 4, 32].
    """

    shape: KVShape
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in KV_FORMATS:
            raise ConfigError(f"must be one of {', '.join(KV_FORMATS)}", field="kv_dtype", value=self.dtype)
        if not self.format.fits(self.shape.head_dim):
            raise ConfigError(
                f"not for heads of {self.shape.head_dim} elements, only for multiples of"
                f" {self.format.multiple} up to {self.format.most}",
                field="kv_dtype",
                value=self.dtype,
            )

    @property
    def format(self) -> KVFormat:
        """How numbers are kept."""
        return KV_FORMATS[self.dtype]

    @property
    def block_bytes(self) -> int:
        dim, heads = self.shape.head_dim, self.shape.layers * self.shape.kv_heads
        elements = math.prod(self.format.key_shape(dim)) + math.prod(self.format.value_shape(dim))
        return heads * elements * self.format.array.itemsize


@dataclass(frozen=True)
class SavedBlocks:
    """A copy of some blocks' contents, in order: keys [n, L, K, D, 32], values [n, L, K, 32, D]."""

    keys: NDArray[np.generic]
    values: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


def runs_of(blocks: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(index, first block, count) of each stretch of neighbouring block numbers: one copy serves it."""
    start = 0
    for index in range(1, len(blocks) + 1):
        if index == len(blocks) or blocks[index] != blocks[index - 1] + 1:
            yield start, blocks[start], index - start
            start = index


def _pages(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Zeros in memory of their own, whose pages come one by one as they are first written.

    np.zeros asks for pages of 2 MiB instead, each of which stops a step for as long as it takes to clear: on
    a virtual machine 5 ms, and 48 ShareGPT prompts ran at 1,370 tokens/s where they run at 1,540.
    """
    count = math.prod(shape)
    size, flags = max(1, count * dtype.itemsize), MAP_PRIVATE | MAP_ANONYMOUS
    mmap(-1, size, flags).close()  # which the kernel refuses where it is more than the machine has
    memory = mmap(-1, size, flags | _NO_RESERVE)
    return np.frombuffer(memory, dtype, count).reshape(shape)


@dataclass(frozen=True)
class _Side:
    """An arena's keys, or its values, as single numbers [B, L, K, n] and scales [B, L, K, 32]. `places`
    [32, D] says where a position's numbers lie."""

    numbers: Numbers
    scales: NDArray[np.float32] | None
    places: I64

    def put(self, layer: int, blocks: I32, offsets: I32, numbers: Numbers, scales: F32 | None) -> None:
        """Numbers [N, K, D] and scales [N, K] of positions `offsets` [N] of blocks [N]."""
        heads = np.arange(self.numbers.shape[2])
        places = self.places[offsets][:, None, :]
        self.numbers[blocks[:, None, None], layer, heads[:, None], places] = numbers
        if self.scales is not None:
            self.scales[blocks[:, None], layer, heads, offsets[:, None]] = scales

    def get(self, layer: int, blocks: I32, offsets: I32) -> tuple[Numbers, F32 | None]:
        heads = np.arange(self.numbers.shape[2])
        places = self.places[offsets][:, None, :]
        numbers = self.numbers[blocks[:, None, None], layer, heads[:, None], places]
        if self.scales is None:
            return numbers, None
        return numbers, self.scales[blocks[:, None], layer, heads, offsets[:, None]]

    def move(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        """Copy all layers of one (block, position) to another."""
        (origin, where), (to, at) = source, target
        self.numbers[to][..., self.places[at]] = self.numbers[origin][..., self.places[where]]
        if self.scales is not None:
            self.scales[to, ..., at] = self.scales[origin, ..., where]


def _side(array: Numbers, kind: KVFormat, places: I64) -> _Side:
    flat = array.view(kind.number).reshape(*array.shape[:3], -1)
    scales = flat[..., places.size :].view(np.float32) if kind.scale_rows else None
    return _Side(flat, scales, places)


class KVArena:
    """Two arrays over all blocks. Starts zeroed; a reused block holds stale but finite numbers.

    keys [B, L, K, D, 32], values [B, L, K, 32, D], or runs: see KVLayout. Pages are touched only when
    first written, so an arena larger than what is used costs address space, not memory. The native executor
    makes those of the next blocks ahead, in its pauses: as many as were used, at most 128 MiB.
    """

    def __init__(self, layout: KVLayout, num_blocks: int) -> None:
        if num_blocks < 1:
            raise MemoryBudgetError(
                f"not even one KV block of {layout.block_bytes} bytes fits", field="kv_memory"
            )
        shape = layout.shape
        self.layout = layout
        self.num_blocks = num_blocks
        head, kind = (num_blocks, shape.layers, shape.kv_heads), layout.format
        try:
            self.keys = _pages((*head, *kind.key_shape(shape.head_dim)), kind.array)
            self.values = _pages((*head, *kind.value_shape(shape.head_dim)), kind.array)
        except (OSError, OverflowError) as error:
            total = num_blocks * layout.block_bytes
            raise MemoryBudgetError(f"cannot allocate {total} bytes for KV", field="kv_memory") from error
        self._sides = (
            _side(self.keys, kind, kind.key_places(shape.head_dim)),
            _side(self.values, kind, kind.value_places(shape.head_dim)),
        )

    def copy_block(self, source: int, target: int) -> None:
        """Copy all layers of one block: what copy-on-write does."""
        self.keys[target] = self.keys[source]
        self.values[target] = self.values[source]

    def save(self, blocks: Sequence[int]) -> SavedBlocks:
        """A copy of these blocks; contiguous ones are copied together (FastSwitch's block groups)."""
        keys = np.empty((len(blocks), *self.keys.shape[1:]), self.keys.dtype)
        values = np.empty((len(blocks), *self.values.shape[1:]), self.values.dtype)
        for at, first, count in runs_of(blocks):
            keys[at : at + count] = self.keys[first : first + count]
            values[at : at + count] = self.values[first : first + count]
        return SavedBlocks(keys, values)

    def restore(self, blocks: Sequence[int], saved: SavedBlocks) -> None:
        """Write what `save` returned into these blocks, in order: the same bits."""
        assert len(blocks) == len(saved)
        for at, first, count in runs_of(blocks):
            self.keys[first : first + count] = saved.keys[at : at + count]
            self.values[first : first + count] = saved.values[at : at + count]

    def move_slots(self, table: I32, sources: Sequence[int], first: int) -> None:
        """Move a draft tree's accepted rows, slots `sources` (ascending), to first, first + 1, ..."""
        for target, source in enumerate(sources, start=first):
            if target != source:
                (to, at), (origin, where) = divmod(target, BLOCK_SIZE), divmod(source, BLOCK_SIZE)
                for side in self._sides:
                    side.move((int(table[origin]), where), (int(table[to]), at))

    def write(self, layer: int, batch: Batch, rows: I32, keys: F32, values: F32) -> None:
        """Store keys, values [rows, K, D] of the given batch rows in their sequences' slots."""
        span = np.searchsorted(batch.span_start, rows, side="right") - 1
        slots, kind = batch.slots[rows], self.layout.format
        blocks, offsets = batch.tables[span, slots // BLOCK_SIZE], slots % BLOCK_SIZE
        for side, encoded in zip(
            self._sides, (kind.encode_keys(keys), kind.encode_values(values)), strict=True
        ):
            side.put(layer, blocks, offsets, *encoded)

    def read(self, layer: int, batch: Batch, span: int, slots: I32) -> tuple[F32, F32]:
        """Keys and values float32 [slots, K, D] of a span's sequence."""
        blocks, offsets = batch.tables[span, slots // BLOCK_SIZE], slots % BLOCK_SIZE
        keys, values = (side.get(layer, blocks, offsets) for side in self._sides)
        return self.layout.format.decode_keys(*keys), self.layout.format.decode_values(*values)

    def round_queries(self, queries: F32) -> F32:
        """Queries [.., D] as keys of this format are multiplied by them."""
        return self.layout.format.round_queries(queries)

    def round_weights(self, weights: F32, values: F32, first: int) -> F32:
        """Weights [K, H/K, N] as the values [N, K, D] of logical positions from `first` on are multiplied by
        them."""
        return self.layout.format.round_weights(weights, values, first)
