"""Who owns which block: reference counts, tables that grow, fork and shrink. No arrays of numbers here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from ..errors import OutOfBlocksError
from ..types import BLOCK_SIZE, I32


def blocks_for(slots: int) -> int:
    """Blocks that hold a number of slots."""
    return -(-slots // BLOCK_SIZE)


class Keeper(Protocol):
    """Who keeps blocks that no table refers to (a prefix cache), and is told what becomes of them."""

    def rest(self, block: int) -> None:
        """The last table let go of a kept block."""

    def wake(self, block: int) -> None:
        """A table refers to a resting block again."""

    def give_up(self) -> None:
        """Stop keeping at least one resting block. Called only while one rests."""

    def give_up_stale(self) -> None:
        """The same if one has rested so long that its memory is better used again; else nothing."""

    def withdraw(self, block: int) -> None:
        """Stop keeping this block, which a table refers to."""


class BlockPool:
    """Hands out block numbers 0..count-1. A block is free when nobody refers to it; one that is kept rests
    instead, and is given up when it is wanted: `num_free` counts both."""

    def __init__(self, count: int) -> None:
        self._references = [0] * count
        self._free = list(range(count - 1, -1, -1))
        self._kept = bytearray(count)
        self._num_resting = 0
        self.num_touched = 0  # blocks from there on were never handed out
        self.keeper: Keeper | None = None

    @property
    def num_free(self) -> int:
        return len(self._free) + self._num_resting

    @property
    def num_blocks(self) -> int:
        return len(self._references)

    def take(self) -> int:
        """A free block with one reference; OutOfBlocksError if none is left. One that was used before
        comes first, for its memory is there: see `kv.working_set`."""
        if not self._free:
            if not self._num_resting or self.keeper is None:
                raise OutOfBlocksError(f"all {self.num_blocks} KV blocks are in use")
            self.keeper.give_up()
        elif self._free[-1] >= self.num_touched and self._num_resting and self.keeper is not None:
            self.keeper.give_up_stale()
        block = self._free.pop()
        self.num_touched = max(self.num_touched, block + 1)
        self._references[block] = 1
        return block

    def share(self, block: int) -> None:
        """One reference more to a block that is in use or rests."""
        if self._references[block] == 0:
            assert self._kept[block]
            assert self.keeper is not None
            self._num_resting -= 1
            self.keeper.wake(block)
        self._references[block] += 1

    def drop(self, block: int) -> None:
        """Give one reference back; after the last the block is free, or rests if it is kept."""
        assert self._references[block] > 0
        self._references[block] -= 1
        if self._references[block] == 0:
            self._retire(block)

    def _retire(self, block: int) -> None:
        if self._kept[block]:
            assert self.keeper is not None
            self._num_resting += 1
            self.keeper.rest(block)
        else:
            self._free.append(block)

    def keep(self, block: int) -> None:
        """The keeper wants this block, which a table refers to, when its tables let go."""
        assert self._references[block] > 0
        assert not self._kept[block]
        self._kept[block] = 1

    def unkeep(self, block: int) -> None:
        """The keeper wants it no more; a resting block is free now."""
        assert self._kept[block]
        self._kept[block] = 0
        if self._references[block] == 0:
            self._num_resting -= 1
            self._free.append(block)

    def reclaim(self, block: int) -> bool:
        """Have a kept block, which one table refers to, for that table alone; False if others use it."""
        if not self._kept[block] or self._references[block] > 1 or self.keeper is None:
            return False
        self.keeper.withdraw(block)
        return True

    def is_shared(self, block: int) -> bool:
        """Whether a table must copy it before it writes."""
        return self._references[block] > 1 or self._kept[block] == 1

    def is_held_once(self, block: int) -> bool:
        """Whether the block can be had when its one table lets go: it is free then, or rests."""
        return self._references[block] == 1

    def is_kept(self, block: int) -> bool:
        return self._kept[block] == 1

    def rests(self, block: int) -> bool:
        return self._kept[block] == 1 and self._references[block] == 0

    def check(self, tables: Sequence[BlockTable]) -> None:
        """Assert that the tables account for every reference: called when the engine idles."""
        counts = [0] * self.num_blocks
        for table in tables:
            for block in table.blocks:
                counts[block] += 1
        assert counts == self._references, "KV reference counts do not match the tables"
        idle = [block for block, count in enumerate(counts) if count == 0]
        assert sorted(self._free) == [block for block in idle if not self._kept[block]]
        assert self._num_resting == sum(self._kept[block] for block in idle)

    def check_kept(self, blocks: Iterable[int]) -> None:
        """Assert that these blocks are the kept ones, and no others."""
        assert sorted(blocks) == [block for block, kept in enumerate(self._kept) if kept]


class BlockTable:
    """The blocks of one sequence, in order; slot s lies in blocks[s // 32].

    The idea is PagedAttention's (Kwon et al. 2023). Shared blocks are copied before they are written
    (`copy` is the arena's copy_block), so a fork costs one reference per block.
    """

    __slots__ = ("_array", "_copy", "_pool", "blocks")

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
        last = (end - 1) // BLOCK_SIZE
        if start // BLOCK_SIZE == last < len(self.blocks) and not self._pool.is_shared(self.blocks[last]):
            return  # a block of its own has room: so it is in most steps
        shared = self._shared(start, end)
        needed = max(0, blocks_for(end) - len(self.blocks)) + len(shared)
        if needed == 0:
            return
        if needed > self._pool.num_free and any(self._pool.reclaim(self.blocks[i]) for i in shared):
            return self.prepare(start, end)
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

    def put(self, index: int, block: int) -> None:
        """Refer to a block that is in use or rests, in place of an own one or as the next."""
        assert index <= len(self.blocks)
        self._pool.share(block)
        if index < len(self.blocks):
            self._pool.drop(self.blocks[index])
            self.blocks[index] = block
        else:
            self.blocks.append(block)
        self._array = None

    def put_copy(self, index: int, block: int) -> bool:
        """The same with a copy of it for this table alone; False, and nothing done, without a free block."""
        self._pool.share(block)  # it must not be the one that gives way
        copy = self.put_new(index)
        if copy is not None:
            self._copy(block, copy)
        self._pool.drop(block)
        return copy is not None

    def put_new(self, index: int) -> int | None:
        """A block for this table alone, to be filled, as its last; None, and nothing done, without one."""
        assert index <= len(self.blocks)
        if self._pool.num_free == 0:
            return None
        block = self._pool.take()
        self.shrink(index * BLOCK_SIZE)
        self.blocks.append(block)
        self._array = None
        return block

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
