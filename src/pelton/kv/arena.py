"""The memory that keys and values live in: fixed-size blocks of 32 positions, shared by all sequences."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, MemoryBudgetError
from ..plan import KVShape
from ..quant.floats import narrow_bf16, widen_bf16
from ..types import BLOCK_SIZE, I32, Batch

F32 = NDArray[np.float32]
KV_DTYPES = ("bfloat16", "float16", "float32")
_STORED: Mapping[str, type[np.generic]] = MappingProxyType(
    {"bfloat16": np.uint32, "float16": np.float16, "float32": np.float32}
)
_LARGEST: Mapping[str, float] = MappingProxyType(
    {"bfloat16": 3.3895314e38, "float16": 65504.0, "float32": float(np.finfo(np.float32).max)}
)
# MAP_NORESERVE, which Python names from 3.13 on: the kernel joins neighbouring arenas to one mapping, and
# would refuse to fork a process in which that is larger than the memory, though little of it is used.
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0


@dataclass(frozen=True)
class KVLayout:
    """What one block holds: keys [L, K, D, 32] (lanes over positions) and values [L, K, 32, D].

    bfloat16 lies in pairs, as uint32 with the first in the low half, for the instruction that multiplies
    two at a time: keys [L, K, D / 2, 32] of neighbouring elements, values [L, K, 16, D] of neighbouring
    positions. Queries and the weights of values are rounded to bfloat16 as well then.
    """

    shape: KVShape
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in KV_DTYPES:
            raise ConfigError(f"must be one of {', '.join(KV_DTYPES)}", field="kv_dtype", value=self.dtype)
        if self.run == 2 and self.shape.head_dim % 2:
            raise ConfigError(
                f"heads of {self.shape.head_dim} elements have no pairs", field="kv_dtype", value=self.dtype
            )

    @property
    def run(self) -> int:
        """How many numbers an element of the arrays holds."""
        return 2 if self.dtype == "bfloat16" else 1

    @property
    def stored(self) -> np.dtype[np.generic]:
        """The type of the arrays' elements."""
        return np.dtype(_STORED[self.dtype])

    @property
    def block_bytes(self) -> int:
        return self.shape.elements_per_token * BLOCK_SIZE * self.stored.itemsize // self.run


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


class KVArena:
    """Two arrays over all blocks. Starts zeroed; a reused block holds stale but finite numbers.

    keys [B, L, K, D, 32], values [B, L, K, 32, D], or pairs: see KVLayout. Pages are touched only when
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
        head = (num_blocks, shape.layers, shape.kv_heads)
        try:
            self.keys = _pages((*head, shape.head_dim // layout.run, BLOCK_SIZE), layout.stored)
            self.values = _pages((*head, BLOCK_SIZE // layout.run, shape.head_dim), layout.stored)
        except (OSError, OverflowError) as error:
            total = num_blocks * layout.block_bytes
            raise MemoryBudgetError(f"cannot allocate {total} bytes for KV", field="kv_memory") from error

    @property
    def rounds_to_bf16(self) -> bool:
        return self.layout.dtype == "bfloat16"

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
        keys, values = self._single_keys(), self._single_values()
        for target, source in enumerate(sources, start=first):
            if target != source:
                (to, at), (origin, where) = divmod(target, BLOCK_SIZE), divmod(source, BLOCK_SIZE)
                keys[table[to], ..., at, :] = keys[table[origin], ..., where, :]
                at, part = divmod(at, self.layout.run)
                where, half = divmod(where, self.layout.run)
                values[table[to], ..., at, :, part] = values[table[origin], ..., where, :, half]

    def write(self, layer: int, batch: Batch, rows: I32, keys: F32, values: F32) -> None:
        """Store keys, values [rows, K, D] of the given batch rows in their sequences' slots."""
        span = np.searchsorted(batch.span_start, rows, side="right") - 1
        slots, run = batch.slots[rows], self.layout.run
        block, offset = batch.tables[span, slots // BLOCK_SIZE], slots % BLOCK_SIZE
        parts = self._stored(keys).reshape(*keys.shape[:2], -1, run)
        self._single_keys()[block, layer, :, :, offset, :] = parts
        self._single_values()[block, layer, :, offset // run, :, offset % run] = self._stored(values)

    def read(self, layer: int, batch: Batch, span: int, slots: I32) -> tuple[F32, F32]:
        """Keys and values float32 [slots, K, D] of a span's sequence."""
        run = self.layout.run
        block, offset = batch.tables[span, slots // BLOCK_SIZE], slots % BLOCK_SIZE
        keys = self._single_keys()[block, layer, :, :, offset, :]  # [N, K, D / run, run]
        values = self._single_values()[block, layer, :, offset // run, :, offset % run]
        return self._widened(keys.reshape(*keys.shape[:2], -1)), self._widened(values)

    def _single_keys(self) -> NDArray[np.generic]:
        """Keys as single numbers: [B, L, K, D / run, 32, run]."""
        return self.keys.view(self._single).reshape(*self.keys.shape, self.layout.run)

    def _single_values(self) -> NDArray[np.generic]:
        """Values as single numbers: [B, L, K, 32 / run, D, run]."""
        return self.values.view(self._single).reshape(*self.values.shape, self.layout.run)

    @property
    def _single(self) -> np.dtype[np.generic]:
        return np.dtype(np.uint16) if self.layout.run == 2 else self.layout.stored

    def _stored(self, x: F32) -> NDArray[np.generic]:
        # Finite always: what a block's next owner does not overwrite is masked by a weight of zero.
        largest = np.float32(_LARGEST[self.layout.dtype])
        finite = np.clip(np.nan_to_num(x), -largest, largest)
        return narrow_bf16(finite) if self.layout.run == 2 else finite.astype(self.layout.stored)

    def _widened(self, x: NDArray[np.generic]) -> F32:
        return widen_bf16(x.astype(np.uint16)) if self.layout.run == 2 else x.astype(np.float32)
