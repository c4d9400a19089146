"""Who owns which block: reference counts, tables that grow, fork and shrink. No arrays of numbers here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import OutOfBlocksError
from ..types import BLOCK_SIZE, I32


def blocks_for(slots: int) -> int:
    """Blocks that hold a number of slots."""
    return -(-slots // BLOCK_SIZE)


class BlockPool:
    """Hands out block numbers 0..count-1; a block is free when nobody refers to it."""

    def __init__(self, count: int) -> None:
        self._references = [0] * count
        self._free = list(range(count - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_blocks(self) -> int:
        return len(self._references)

    def take(self) -> int:
        """A free block with one reference; OutOfBlocksError if none is left."""
        if not self._free:
            raise OutOfBlocksError(f"all {self.num_blocks} KV blocks are in use")
        block = self._free.pop()
        self._references[block] = 1
        return block

    def share(self, block: int) -> None:
        assert self._references[block] > 0
        self._references[block] += 1

    def drop(self, block: int) -> None:
        """Give one reference back; the block is free after the last."""
        assert self._references[block] > 0
        self._references[block] -= 1
        if self._references[block] == 0:
            self._free.append(block)

    def is_shared(self, block: int) -> bool:
        return self._references[block] > 1

    def check(self, tables: list[BlockTable]) -> None:
        """Assert that the tables account for every reference: called when the engine idles."""
        counts = [0] * self.num_blocks
        for table in tables:
            for block in table.blocks:
                counts[block] += 1
        assert counts == self._references, "KV reference counts do not match the tables"
        assert len(self._free) == counts.count(0)


class BlockTable:
    """The blocks of one sequence, in order; slot s lies in blocks[s // 32].

    The idea is PagedAttention's (Kwon et al. 2023). Shared blocks are copied before they are written
    (`copy` is the arena's copy_block), so a fork costs one reference per block.
    """

    def __init__(self, pool: BlockPool, copy: Callable[[int, int], None]) -> None:
        self._pool = pool
        self._copy = copy
        self.blocks: list[int] = []
        self._array: I32 | None = None

    @property
    def array(self) -> I32:
        """The block numbers as int32 [blocks]; rebuilt only after a change."""
        if self._array is None:
            self._array = np.array(self.blocks, dtype=np.int32)
        return self._array

    def prepare(self, start: int, end: int) -> None:
        """Make slots start..end writable: copy shared blocks, take new ones. All or nothing."""
        shared = self._shared(start, end)
        needed = max(0, blocks_for(end) - len(self.blocks)) + len(shared)
        if needed == 0:
            return
        if needed > self._pool.num_free:
            raise OutOfBlocksError(f"{needed} KV blocks needed, {self._pool.num_free} free")
        for index in shared:
            block = self._pool.take()
            self._copy(self.blocks[index], block)
            self._pool.drop(self.blocks[index])
            self.blocks[index] = block
            self._array = None
        while len(self.blocks) < blocks_for(end):
            self.blocks.append(self._pool.take())
            self._array = None

    def shrink(self, slots: int) -> None:
        """Roll back: keep only the blocks that the first `slots` slots need."""
        while len(self.blocks) > blocks_for(slots):
            self._pool.drop(self.blocks.pop())
            self._array = None

    def fork(self) -> BlockTable:
        """A second table over the same blocks."""
        other = BlockTable(self._pool, self._copy)
        for block in self.blocks:
            self._pool.share(block)
        other.blocks = list(self.blocks)
        return other

    def release(self) -> None:
        self.shrink(0)

    def _shared(self, start: int, end: int) -> list[int]:
        if end <= start:
            return []
        held = range(start // BLOCK_SIZE, min(blocks_for(end), len(self.blocks)))
        return [index for index in held if self._pool.is_shared(self.blocks[index])]
