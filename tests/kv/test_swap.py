"""Swapping: the bits that come back are the bits that left, and only changed blocks are copied."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.kv import BlockPool, BlockTable, KVArena, KVLayout, SwapSpace, blocks_for
from pelton.kv.arena import runs_of
from pelton.plan import KVShape
from pelton.types import BLOCK_SIZE

SHAPE = KVShape(layers=2, kv_heads=2, head_dim=4)


class Bench:
    """A pool, an arena and swap space; tables are written with random numbers."""

    def __init__(self, blocks: int = 24, budget: int = 1 << 30) -> None:
        self.arena = KVArena(KVLayout(SHAPE), blocks)
        self.pool = BlockPool(blocks)
        self.space = SwapSpace(self.arena, budget)
        self.random = np.random.default_rng(0)

    def table(self, slots: int) -> BlockTable:
        table = BlockTable(self.pool, self.arena.copy_block)
        self.write(table, 0, slots)
        return table

    def write(self, table: BlockTable, start: int, end: int) -> None:
        table.prepare(start, end)
        for slot in range(start, end):
            block, at = table.blocks[slot // BLOCK_SIZE], slot % BLOCK_SIZE
            self.arena.keys[block, ..., at] = self.random.standard_normal((2, 2, 4))
            self.arena.values[block, ..., at, :] = self.random.standard_normal((2, 2, 4))

    def read(self, table: BlockTable, slots: int) -> list[bytes]:
        return [
            part[block].tobytes()
            for block in table.blocks[: blocks_for(slots)]
            for part in (self.arena.keys, self.arena.values)
        ]


@given(st.lists(st.integers(0, 40), unique=True, max_size=20))
def test_runs_cover_the_blocks_once_in_order(blocks: list[int]) -> None:
    runs = list(runs_of(blocks))
    assert [first + i for _, first, count in runs for i in range(count)] == blocks
    assert [at for at, _, _ in runs] == [sum(c for _, _, c in runs[:i]) for i in range(len(runs))]
    assert all(a[1] + a[2] != b[1] for a, b in pairwise(runs))


@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6), seed=st.integers(0, 2**16))
@settings(max_examples=30)
def test_the_same_bits_come_back_and_only_changes_are_copied(lengths: list[int], seed: int) -> None:
    bench = Bench()
    random = np.random.default_rng(seed)
    table, handle, slots = bench.table(1), None, 1
    for length in lengths:
        bench.write(table, slots, slots + length)
        full_before = handle.slots // BLOCK_SIZE if handle else 0
        slots += length
        held, copied = bench.read(table, slots), bench.space.blocks_copied
        handle = bench.space.out(table, slots, handle)
        assert handle is not None
        assert bench.space.blocks_copied - copied == blocks_for(slots) - full_before
        table.release()
        strangers = [bench.table(int(random.integers(1, 60))) for _ in range(3)]  # blocks land elsewhere
        for stranger in strangers[::-1]:
            stranger.release()
        bench.space.into(handle, table)
        assert bench.read(table, slots) == held
        if slots > 400:
            break
    table.release()
    bench.pool.check([])


def test_a_prefix_that_is_there_already_is_not_copied() -> None:
    bench = Bench()
    table = bench.table(100)
    held = bench.read(table, 100)
    handle = bench.space.out(table, 100)
    assert handle is not None
    prefix = table.fork()
    prefix.shrink(64)
    table.release()
    copied = bench.space.blocks_copied
    bench.space.into(handle, prefix, first_slot=64)
    assert bench.space.blocks_copied - copied == 2
    assert bench.read(prefix, 100) == held


def test_a_rolled_back_sequence_copies_what_it_wrote_again() -> None:
    bench = Bench()
    table = bench.table(100)
    handle = bench.space.out(table, 100)
    assert handle is not None
    table.shrink(40)
    handle.keep(40)
    bench.write(table, 40, 90)
    held = bench.read(table, 90)
    assert bench.space.out(table, 90, handle) is handle
    table.release()
    bench.space.into(handle, table)
    assert bench.read(table, 90) == held


def test_the_budget_holds_and_only_copies_of_running_sequences_give_way() -> None:
    block = KVLayout(SHAPE).block_bytes
    bench = Bench(budget=4 * block)
    first, second = bench.table(64), bench.table(96)
    kept = bench.space.out(first, 64)
    assert kept is not None
    assert bench.space.out(second, 96) is None  # two of four blocks are a waiting sequence's
    assert bench.space.bytes_used == 2 * block
    first.release()
    bench.space.into(kept, first)
    moved = bench.space.out(second, 96)  # now the first runs again: its copy gives way
    assert moved is not None
    assert bench.space.bytes_used == 3 * block
    again = bench.space.out(first, 64, kept)
    assert again is None
    bench.space.drop(moved)
    assert bench.space.out(first, 64, kept) is not None
