"""Which free KV blocks are already spoken for."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OutOfBlocksError
from ..kv import BlockPool, blocks_for
from ..types import BLOCK_SIZE
from .sequence import Sequence


@dataclass(slots=True)
class _Claim:
    sequence: Sequence
    blocks: int
    outstanding: int = 0  # of them, as many as it does not hold yet


class Claims:
    """Blocks set aside for sequences that hold fewer yet: a long prompt's later chunks, say.

    Nobody else may take them, so two prompts that would fit one at a time do not start together and
    push each other out. A firm claim lasts as long as its sequence; others end when they are met.

    What is outstanding is added up once a step, in `begin_step`; until the next one only `prepare` may
    change the table of a sequence that has a claim.
    """

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._claims: dict[int, _Claim] = {}
        self._firm: set[int] = set()
        self._outstanding = 0

    def begin_step(self) -> None:
        """Look at all tables: since the last step drafts were rolled back and sequences ended."""
        for claim in list(self._claims.values()):
            self._look_at(claim)

    def claim(self, sequence: Sequence, slots: int, *, firm: bool) -> None:
        self.drop(sequence)
        if firm:
            self._firm.add(sequence.id)
        claim = _Claim(sequence, min(blocks_for(slots), self._pool.num_blocks))
        self._claims[sequence.id] = claim
        self._look_at(claim)

    def drop(self, sequence: Sequence) -> None:
        claim = self._claims.pop(sequence.id, None)
        if claim is not None:
            self._outstanding -= claim.outstanding
        self._firm.discard(sequence.id)

    def is_firm(self, sequence: Sequence) -> bool:
        """Whether it has all the blocks that it can ever need, and so need not give any."""
        return sequence.id in self._firm

    def available(self, sequence: Sequence) -> int:
        """Blocks that are free and not set aside for others than `sequence`."""
        claim = self._claims.get(sequence.id)
        own = 0 if claim is None else claim.outstanding
        return self._pool.num_free - (self._outstanding - own)

    def lacking(self, sequence: Sequence, end: int) -> int:
        """Blocks that are missing for slots up to `end` to become writable; 0 or less: none."""
        return self._needed(sequence, end) - self.available(sequence)

    def prepare(self, sequence: Sequence, end: int) -> bool:
        """Make slots computed..end writable; False if there are not enough blocks."""
        claim = self._claims.get(sequence.id)
        if claim is not None:
            self._look_at(claim)  # it may share blocks by now that others have computed
        if self._claims and self.lacking(sequence, end) > 0:
            return False
        try:
            sequence.table.prepare(sequence.computed, end)
        except OutOfBlocksError:
            return False
        if claim is not None:
            self._look_at(claim)
        return True

    def gain(self, sequence: Sequence) -> int:
        """Blocks that would become free at least if the sequence gave all of its own back."""
        held = sum(self._pool.is_held_once(block) for block in sequence.table.blocks)
        claim = self._claims.get(sequence.id)
        return held + (max(0, claim.blocks - len(sequence.table.blocks)) if claim else 0)

    def _look_at(self, claim: _Claim) -> None:
        """Its table may have changed. A claim that is met ends, unless it is firm."""
        sequence = claim.sequence
        if self._claims.get(sequence.id) is not claim:
            return
        before, claim.outstanding = claim.outstanding, max(0, claim.blocks - len(sequence.table.blocks))
        self._outstanding += claim.outstanding - before
        if claim.outstanding == 0 and sequence.id not in self._firm:
            del self._claims[sequence.id]

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
