"""Which free KV blocks are already spoken for."""

from __future__ import annotations

from ..errors import OutOfBlocksError
from ..kv import BlockPool, blocks_for
from ..types import BLOCK_SIZE
from .sequence import Sequence


class Claims:
    """Blocks set aside for sequences that hold fewer yet: a long prompt's later chunks, say.

    Nobody else may take them, so two prompts that would fit one at a time do not start together and
    push each other out. A firm claim lasts as long as its sequence; others end when they are met.
    """

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._claims: dict[int, tuple[Sequence, int]] = {}
        self._firm: set[int] = set()

    def claim(self, sequence: Sequence, slots: int, *, firm: bool) -> None:
        self._claims[sequence.id] = (sequence, min(blocks_for(slots), self._pool.num_blocks))
        if firm:
            self._firm.add(sequence.id)

    def drop(self, sequence: Sequence) -> None:
        self._claims.pop(sequence.id, None)
        self._firm.discard(sequence.id)

    def is_firm(self, sequence: Sequence) -> bool:
        """Whether it has all the blocks that it can ever need, and so need not give any."""
        return sequence.id in self._firm

    @property
    def any_firm(self) -> bool:
        return bool(self._firm)

    def available(self, sequence: Sequence | None = None) -> int:
        """Blocks that are free and not set aside for others than `sequence`."""
        free = self._pool.num_free
        for key, (owner, blocks) in list(self._claims.items()):
            outstanding = blocks - len(owner.table.blocks)
            if outstanding > 0:
                free -= 0 if owner is sequence else outstanding
            elif key not in self._firm:
                del self._claims[key]
        return free

    def lacking(self, sequence: Sequence, end: int) -> int:
        """Blocks that are missing for slots up to `end` to become writable; 0 or less: none."""
        return self._needed(sequence, end) - self.available(sequence)

    def prepare(self, sequence: Sequence, end: int) -> bool:
        """Make slots computed..end writable; False if there are not enough blocks."""
        if self._claims and self.lacking(sequence, end) > 0:
            return False
        try:
            sequence.table.prepare(sequence.computed, end)
        except OutOfBlocksError:
            return False
        return True

    def gain(self, sequence: Sequence) -> int:
        """Blocks that would become free at least if the sequence gave all of its own back."""
        held = sum(self._pool.is_held_once(block) for block in sequence.table.blocks)
        claim = self._claims.get(sequence.id)
        return held + (max(0, claim[1] - len(sequence.table.blocks)) if claim else 0)

    def _needed(self, sequence: Sequence, end: int) -> int:
        blocks = sequence.table.blocks
        written = blocks[sequence.computed // BLOCK_SIZE : blocks_for(end)]
        copies = sum(self._pool.is_shared(block) for block in written)
        return max(0, blocks_for(end) - len(blocks)) + copies - _given(sequence)


def _given(sequence: Sequence) -> int:
    """Blocks that a sequence which is about to start shares with running ones: they take no room."""
    if sequence.prefix is None or sequence.table.blocks or sequence.prompt_logprobs is not None:
        return 0
    return sequence.prefix.in_use(sequence.tokens[:-1])
