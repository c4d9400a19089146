"""Preemption by swapping where copying is cheaper than computing again, as measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from threading import Thread
from time import perf_counter

from ..kv import BlockPool, Swapped, SwapSpace, blocks_for
from ..types import BLOCK_SIZE
from .rates import StepRates
from .sequence import Sequence

BLOCKS_AHEAD = 16
"""Blocks saved beside one step at most: 12 MB of a 135M model's, 3 ms at 4 GB/s."""
LOW_WATER = 4
"""Copying ahead begins when less than one block in so many is free."""

Save = Callable[[], Swapped | None]
Beside = Callable[[Save], "Future[Swapped | None]"]


def in_a_thread(save: Save) -> Future[Swapped | None]:
    """Begin to save; the thread ends with it (50 microseconds, and none is left behind by an engine)."""
    future: Future[Swapped | None] = Future()

    def run() -> None:
        try:
            future.set_result(save())
        except BaseException as error:  # told to whoever waits for the result
            future.set_exception(error)

    Thread(target=run, name="pelton-swap").start()
    return future


class SwapOrRecompute:
    """Copies a preempted sequence's KV out and back, or drops it, whichever takes less time.

    Proactive swapping of "Fast Distributed Inference Serving for Large Language Models" (FastServe): while
    memory is scarce, the full blocks of the sequences likely to be preempted next are copied beside the
    step, by a thread that works while the executor does, so that only the last block is left to copy when
    it happens. With SwapSpace it makes up the mechanisms of "FastSwitch": neighbouring blocks move
    together, copies overlap the computation, and blocks that have not changed are not copied again.

    Promise: exact = True (the same bits come back). Both costs come from `rates`: copies at the speed of
    the copies so far, rows at what rows cost in the steps so far. most_blocks: what `space` holds.
    """

    exact = True

    def __init__(
        self,
        space: SwapSpace,
        pool: BlockPool,
        most_blocks: int,
        block_bytes: int,
        rates: StepRates,
        clock: Callable[[], float] = perf_counter,
        beside: Beside | None = None,
    ) -> None:
        self._space = space
        self._pool = pool
        self._most_blocks = most_blocks
        self._block_bytes = block_bytes
        self._rates = rates
        self._clock = clock
        self._copies: dict[int, Swapped] = {}
        self._depended_on: int | None = None
        self._beside = beside or in_a_thread
        self._saving: tuple[Sequence, Future[Swapped | None]] | None = None
        self.swapped = 0
        self.recomputed = 0
        """How often either was chosen."""

    def out(self, sequence: Sequence) -> None:
        self.settle()
        if sequence.computed and self._is_cheaper(sequence) and self._save(sequence):
            self.swapped += 1
            sequence.step_aside()
        else:
            self.recomputed += 1
            self.forget(sequence)
            sequence.preempt()

    def keeps(self, sequence: Sequence) -> bool:
        # Half of the space is left for when memory runs out: a full one has those computed again whom it was
        # for (under mlfq at 1.2 times what a machine can serve, four times the mean completion; simulated).
        if self._depended_on is None:  # copies of who runs again give way; the others do not
            self._depended_on = sum(copy.num_blocks for copy in self._copies.values() if copy.waiting)
        needed = blocks_for(sequence.computed)
        return 2 * (self._depended_on + needed) <= self._most_blocks and self._is_cheaper(sequence)

    def back(self, sequence: Sequence) -> None:
        """What the prefix cache still has of it is not copied."""
        self.settle()
        copy = self._copies.get(sequence.id)
        if copy is None or not copy.waiting:
            return
        first = 0
        if sequence.prefix is not None:
            first = sequence.prefix.extend(sequence.tokens, 0, sequence.computed) // BLOCK_SIZE * BLOCK_SIZE
        before, start = self._space.blocks_copied, self._clock()
        self._space.into(copy, sequence.table, first)
        self._note(before, start)

    def forget(self, sequence: Sequence) -> None:
        self.settle()
        copy = self._copies.pop(sequence.id, None)
        if copy is not None:
            self._space.drop(copy)

    def anticipate(self, sequences: Iterable[Sequence]) -> None:
        if self._pool.num_free * LOW_WATER >= self._pool.num_blocks:
            return
        self.settle()
        for sequence in sequences:
            copy = self._copies.get(sequence.id)
            saved = 0 if copy is None else min(copy.slots, sequence.unchanged) // BLOCK_SIZE
            full = min(sequence.computed // BLOCK_SIZE, saved + BLOCKS_AHEAD)
            if full > saved and self._is_cheaper(sequence):
                slots = full * BLOCK_SIZE
                sequence.unchanged, before = slots, self._kept(sequence)
                save = partial(self._space.out, sequence.table, slots, before)
                future = self._beside(save)
                self._saving = (sequence, future)
                return

    def settle(self) -> None:
        self._depended_on = None
        if self._saving is None:
            return
        (sequence, future), self._saving = self._saving, None
        copy = future.result()
        if copy is None:
            self._copies.pop(sequence.id, None)
        else:
            copy.waiting = False  # the sequence runs on; the copy may give way
            self._copies[sequence.id] = copy

    def _is_cheaper(self, sequence: Sequence) -> bool:
        blocks = blocks_for(sequence.computed)
        copying = 2 * blocks * self._block_bytes / self._rates.copy_bytes_per_second
        return copying < sequence.computed * self._rates.row

    def _save(self, sequence: Sequence) -> bool:
        before, start = self._space.blocks_copied, self._clock()
        kept = self._kept(sequence)
        copy = self._space.out(sequence.table, sequence.computed, kept)
        self._note(before, start)
        if copy is None:
            self._copies.pop(sequence.id, None)
            return False
        sequence.unchanged = sequence.computed
        self._copies[sequence.id] = copy
        return True

    def _kept(self, sequence: Sequence) -> Swapped | None:
        """Its last copy, as far as that still holds."""
        copy = self._copies.get(sequence.id)
        if copy is not None:
            copy.keep(min(sequence.unchanged, copy.slots))
        return copy

    def _note(self, blocks_before: int, start: float) -> None:
        blocks = self._space.blocks_copied - blocks_before
        if blocks:
            self._rates.observe_copy(blocks * self._block_bytes, self._clock() - start)
