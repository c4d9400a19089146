"""Blocks: reference counts, copy-on-write forks, roll-back, and what the arena stores."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from pelton.batch import make_batch
from pelton.errors import ConfigError, MemoryBudgetError, OutOfBlocksError
from pelton.kv import KV_FORMATS, BlockPool, BlockTable, KVArena, KVLayout, blocks_for
from pelton.plan import KVShape
from pelton.types import BLOCK_SIZE, Span

F32 = NDArray[np.float32]
SHAPE = KVShape(layers=2, kv_heads=2, head_dim=16)


class Tables(RuleBasedStateMachine):
    """Random growth, forks, roll-backs and releases against a model of what each slot must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12)
        self.content = np.zeros((12, BLOCK_SIZE), int)
        self.tables: list[tuple[BlockTable, list[int]]] = []
        self.stamp = 0

    def copy(self, source: int, target: int) -> None:
        self.content[target] = self.content[source]

    @rule()
    def create(self) -> None:
        self.tables.append((BlockTable(self.pool, self.copy), []))

    @rule(which=st.integers(0, 99), count=st.integers(1, 70))
    def grow(self, which: int, count: int) -> None:
        if not self.tables:
            return
        table, expected = self.tables[which % len(self.tables)]
        start = len(expected)
        try:
            table.prepare(start, start + count)
        except OutOfBlocksError:
            return
        for slot in range(start, start + count):
            self.stamp += 1
            self.content[table.array[slot // BLOCK_SIZE], slot % BLOCK_SIZE] = self.stamp
            expected.append(self.stamp)

    @rule(which=st.integers(0, 99))
    def fork(self, which: int) -> None:
        if self.tables:
            table, expected = self.tables[which % len(self.tables)]
            self.tables.append((table.fork(), list(expected)))

    @rule(which=st.integers(0, 99), keep=st.floats(0, 1))
    def roll_back(self, which: int, keep: float) -> None:
        if self.tables:
            table, expected = self.tables[which % len(self.tables)]
            del expected[int(keep * len(expected)) :]
            table.shrink(len(expected))

    @rule(which=st.integers(0, 99))
    def release(self, which: int) -> None:
        if self.tables:
            table, _ = self.tables.pop(which % len(self.tables))
            table.release()

    @invariant()
    def counts_and_contents_agree(self) -> None:
        self.pool.check([table for table, _ in self.tables])
        for table, expected in self.tables:
            held = [self.content[table.array[s // BLOCK_SIZE], s % BLOCK_SIZE] for s in range(len(expected))]
            assert held == expected


Tables.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestTables = Tables.TestCase


@pytest.mark.parametrize("dtype", KV_FORMATS)
def test_arena_returns_what_was_written_in_logical_order(dtype: str) -> None:
    arena, kind = KVArena(KVLayout(SHAPE, dtype), 4), KV_FORMATS[dtype]
    random = np.random.default_rng(0)
    keys, values = random.standard_normal((2, 40, 2, 16)).astype(np.float32)
    stored = (kind.decode_keys(*kind.encode_keys(keys)), kind.decode_values(*kind.encode_values(values)))
    table = np.array([2, 0], np.int32)
    batch = make_batch([Span(0, 0, np.zeros(40, np.int32), table, np.zeros(0, np.int32))])
    arena.write(1, batch, np.arange(40, dtype=np.int32), keys, values)
    slots = np.array([0, 31, 32, 39], np.int32)
    for found, written in zip(arena.read(1, batch, 0, slots), stored, strict=True):
        np.testing.assert_array_equal(found, written[slots])
    arena.move_slots(table, [33, 36, 39], 30)
    moved = arena.read(1, batch, 0, np.array([29, 30, 31, 32], np.int32))
    for found, written in zip(moved, stored, strict=True):
        np.testing.assert_array_equal(found, written[[29, 33, 36, 39]])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_with_more_address_space_than_memory_can_fork() -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    layout = KVLayout(SHAPE)
    arenas = [KVArena(layout, memory // 4 // layout.block_bytes) for _ in range(8)]
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert all(not arena.keys[0].any() for arena in arenas)


def test_limits_are_typed_errors() -> None:
    assert blocks_for(33) == 2
    with pytest.raises(ConfigError, match="kv_dtype = 'int3'"):
        KVLayout(SHAPE, "int3")
    with pytest.raises(MemoryBudgetError):
        KVArena(KVLayout(SHAPE), 0)
    for too_many in (2**40, 2**70):
        with pytest.raises(MemoryBudgetError, match="cannot allocate"):
            KVArena(KVLayout(SHAPE), too_many)
    table = BlockTable(BlockPool(1), lambda a, b: None)
    with pytest.raises(OutOfBlocksError, match="2 KV blocks needed, 1 free"):
        table.prepare(0, 64)
    assert table.blocks == []
