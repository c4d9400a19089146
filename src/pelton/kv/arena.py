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

F32 = NDArray[np.float32]
KV_DTYPES = ("float16", "float32")
_LARGEST_HALF = np.float32(65504)
# MAP_NORESERVE, which Python names from 3.13 on: the kernel joins neighbouring arenas to one mapping, and
# would refuse to fork a process in which that is larger than the memory, though little of it is used.
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0


@dataclass(frozen=True)
class KVLayout:
    """What one block holds: keys [L, K, D, 32] (lanes over positions) and values [L, K, 32, D]."""

    shape: KVShape
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in KV_DTYPES:
            raise ConfigError(f"must be one of {', '.join(KV_DTYPES)}", field="kv_dtype", value=self.dtype)

    @property
    def block_bytes(self) -> int:
        return self.shape.elements_per_token * BLOCK_SIZE * np.dtype(self.dtype).itemsize


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


def _pages(shape: tuple[int, ...], dtype: str) -> NDArray[np.generic]:
    """Zeros in memory of their own, whose pages come one by one as they are first written.

    np.zeros asks for pages of 2 MiB instead, each of which stops a step for as long as it takes to clear: on
    a virtual machine 5 ms, and 48 ShareGPT prompts ran at 1,370 tokens/s where they run at 1,540.
    """
    count = math.prod(shape)
    size, flags = max(1, count * np.dtype(dtype).itemsize), MAP_PRIVATE | MAP_ANONYMOUS
    mmap(-1, size, flags).close()  # which the kernel refuses where it is more than the machine has
    memory = mmap(-1, size, flags | _NO_RESERVE)
    return np.frombuffer(memory, dtype, count).reshape(shape)


class KVArena:
    """Two arrays over all blocks. Starts zeroed; a reused block holds stale but finite numbers.

    keys [B, L, K, D, 32], values [B, L, K, 32, D]. Pages are touched only when first written, so
    an arena larger than what is used costs address space, not memory. The native executor makes those of
    the next blocks ahead, in its pauses: as many as were used, at most 128 MiB.
    """

    def __init__(self, layout: KVLayout, num_blocks: int) -> None:
        if num_blocks < 1:
            raise MemoryBudgetError(
                f"not even one KV block of {layout.block_bytes} bytes fits", field="kv_memory"
            )
        shape = layout.shape
        self.layout = layout
        self.num_blocks = num_blocks
        head = (num_blocks, shape.layers, shape.kv_heads)
        try:
            self.keys = _pages((*head, shape.head_dim, BLOCK_SIZE), layout.dtype)
            self.values = _pages((*head, BLOCK_SIZE, shape.head_dim), layout.dtype)
        except (OSError, OverflowError) as error:
            total = num_blocks * layout.block_bytes
            raise MemoryBudgetError(f"cannot allocate {total} bytes for KV", field="kv_memory") from error

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
                self.keys[table[to], ..., at] = self.keys[table[origin], ..., where]
                self.values[table[to], ..., at, :] = self.values[table[origin], ..., where, :]

    def write(self, layer: int, batch: Batch, rows: I32, keys: F32, values: F32) -> None:
        """Store keys, values [rows, K, D] of the given batch rows in their sequences' slots."""
        span = np.searchsorted(batch.span_start, rows, side="right") - 1
        slots = batch.slots[rows]
        block, offset = batch.tables[span, slots // BLOCK_SIZE], slots % BLOCK_SIZE
        self.keys[block, layer, :, :, offset] = self._stored(keys)
        self.values[block, layer, :, offset, :] = self._stored(values)

    def read(self, layer: int, batch: Batch, span: int, slots: I32) -> tuple[F32, F32]:
        """Keys and values float32 [slots, K, D] of a span's sequence."""
        block, offset = batch.tables[span, slots // BLOCK_SIZE], slots % BLOCK_SIZE
        keys = self.keys[block, layer, :, :, offset].astype(np.float32)
        return keys, self.values[block, layer, :, offset, :].astype(np.float32)

    def _stored(self, x: F32) -> NDArray[np.generic]:
        # Finite always: what a block's next owner does not overwrite is masked by a weight of zero.
        largest = _LARGEST_HALF if self.layout.dtype == "float16" else np.finfo(np.float32).max
        return np.clip(np.nan_to_num(x), -largest, largest).astype(self.layout.dtype)
