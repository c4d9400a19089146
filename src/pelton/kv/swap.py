"""Swapping: a preempted sequence's keys and values wait in ordinary memory instead of being computed again.

"FastSwitch: Optimizing Context Switching Efficiency in Fairness-aware Large Language Model Serving":
neighbouring blocks move as one copy, and the copy of a sequence that runs again is kept, so that the next
switch moves only what changed since. Promise: exact = True (the same bits come back).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..types import BLOCK_SIZE
from .arena import KVArena, SavedBlocks
from .blocks import BlockTable, blocks_for


@dataclass(eq=False)
class Swapped:
    """The host copy of one sequence's first `slots` slots. `waiting`: the sequence has no other copy."""

    parts: list[SavedBlocks] = field(default_factory=list)  # consecutive blocks of the table
    slots: int = 0
    waiting: bool = True

    @property
    def num_blocks(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def num_bytes(self) -> int:
        return sum(part.num_bytes for part in self.parts)

    def keep(self, slots: int) -> None:
        """Forget all but the blocks that the first `slots` slots fill: the sequence was rolled back, or
        wrote on in its last block."""
        left, parts = min(slots, self.slots) // BLOCK_SIZE, []
        for part in self.parts:
            if left >= len(part):
                parts.append(part)
            elif left > 0:  # a copy, for a slice would keep the whole part alive
                parts.append(SavedBlocks(part.keys[:left].copy(), part.values[:left].copy()))
            left = max(0, left - len(part))
        self.parts = parts
        self.slots = min(slots, self.slots) // BLOCK_SIZE * BLOCK_SIZE


class SwapSpace:
    """Host copies of sequences' blocks, at most `budget_bytes` of them.

    `out` saves, `into` brings back, `drop` forgets. Copies of sequences that run again give way, the oldest
    first, where a new one needs the room; copies that a sequence depends on never do.
    """

    exact = True

    def __init__(self, arena: KVArena, budget_bytes: int) -> None:
        self._arena = arena
        self.budget_bytes = budget_bytes
        self.blocks_copied = 0
        """Blocks moved out and in so far."""
        self._held: list[Swapped] = []

    @property
    def bytes_used(self) -> int:
        return sum(handle.num_bytes for handle in self._held)

    def out(self, table: BlockTable, slots: int, before: Swapped | None = None) -> Swapped | None:
        """Save what the first `slots` slots of a table hold; the caller releases the table afterwards.

        `before` is the handle of this sequence's last swap, None the first time: its full blocks are not
        copied again (where the sequence was rolled back since, `before.keep` it first). Returns the handle
        to use from now on, or None where the budget does not allow it: nothing is held then.
        """
        handle = before if before is not None and before in self._held else Swapped()
        handle.keep(slots)
        first = handle.num_blocks
        blocks = table.blocks[first : blocks_for(slots)]
        if not self._make_room(handle, len(blocks) * self._arena.layout.block_bytes):
            self.drop(handle)
            return None
        if blocks:
            handle.parts.append(self._arena.save(blocks))
            self.blocks_copied += len(blocks)
        handle.slots = slots
        handle.waiting = True
        if handle not in self._held:
            self._held.append(handle)
        return handle

    def into(self, handle: Swapped, table: BlockTable, first_slot: int = 0) -> None:
        """Give the table its blocks back. Slots below `first_slot` are there already (a shared prefix).

        Raises OutOfBlocksError, with nothing changed. The copy stays for the next swap until room is needed.
        """
        first = first_slot // BLOCK_SIZE
        table.prepare(first * BLOCK_SIZE, handle.slots)
        index = 0
        for part in handle.parts:
            skip = min(max(0, first - index), len(part))
            blocks = table.blocks[index + skip : index + len(part)]
            self._arena.restore(blocks, SavedBlocks(part.keys[skip:], part.values[skip:]))
            self.blocks_copied += len(blocks)
            index += len(part)
        handle.waiting = False
        self._held.remove(handle)
        self._held.append(handle)

    def drop(self, handle: Swapped) -> None:
        """Forget a copy; unknown handles are ignored."""
        if handle in self._held:
            self._held.remove(handle)

    def _make_room(self, handle: Swapped, wanted: int) -> bool:
        used = self.bytes_used + (0 if handle in self._held else handle.num_bytes)
        for other in list(self._held):
            if used + wanted <= self.budget_bytes:
                break
            if not other.waiting and other is not handle:
                used -= other.num_bytes
                self._held.remove(other)
        return used + wanted <= self.budget_bytes
