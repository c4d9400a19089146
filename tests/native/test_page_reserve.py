"""Memory that an arena will want next is made between passes, as much as was used, and stays as it is."""

from __future__ import annotations

import os
import resource
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from pelton.batch import make_batch
from pelton.exec.native import NativeExecutor
from pelton.kv import KVArena
from pelton.types import BLOCK_SIZE, Span

from ..tiny import tiny_arena, tiny_plan, tiny_weights

F32 = NDArray[np.float32]
BLOCKS = 3000
pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="two threads on one processor have no pauses to fill"
)


def use(executor: NativeExecutor, arena: KVArena, blocks: int) -> F32:
    """Logits of a token whose sequence holds the arena's first `blocks` blocks."""
    table = np.arange(blocks, dtype=np.int32)
    context, one = (blocks - 1) * BLOCK_SIZE, np.zeros(1, np.int32)
    forward = executor.begin(make_batch([Span(0, context, one, table, one)]), arena)
    forward.advance()
    return np.array(forward.logits())


def made(executor: NativeExecutor, wanted: int) -> int:
    """Bytes made ahead as soon as they are `wanted`, or after ten seconds."""
    end = time.monotonic() + 10
    while executor.made_ahead != wanted and time.monotonic() < end:
        pass
    return executor.made_ahead


def executor(threads: int = 2) -> NativeExecutor:
    weights = tiny_weights()
    return NativeExecutor(tiny_plan(weights), weights, threads)


def test_as_much_is_made_as_was_used_and_no_more() -> None:
    runs = executor()
    arena = tiny_arena(runs.plan, BLOCKS)
    block = arena.layout.block_bytes
    for used, ahead in [(100, 100), (50, 100), (150, 200), (1600, 1600), (BLOCKS, 1600)]:
        use(runs, arena, used)
        assert made(runs, ahead * block) == ahead * block


def test_what_was_made_is_there_and_holds_what_it_held() -> None:
    runs = executor()
    arena = tiny_arena(runs.plan, BLOCKS)
    arena.keys[150] = 7.0
    use(runs, arena, 100)
    assert made(runs, 100 * arena.layout.block_bytes) > 0
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arena.keys[100:150] = 1.0
    arena.values[100:200] = 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults < 20  # of the 300 pages
    assert (arena.keys[150] == 7.0).all()
    assert not arena.keys[151:].any()


def test_another_arena_begins_anew() -> None:
    runs = executor()
    first = tiny_arena(runs.plan, BLOCKS)
    expected = use(runs, first, 1000)
    del first
    for _ in range(20):
        arena = tiny_arena(runs.plan, BLOCKS)
        assert np.array_equal(use(runs, arena, 1000), expected)
    assert made(runs, 1000 * arena.layout.block_bytes) == 1000 * arena.layout.block_bytes


def test_one_thread_has_no_time_for_it() -> None:
    runs = executor(threads=1)
    use(runs, tiny_arena(runs.plan, BLOCKS), 100)
    assert runs.made_ahead == 0
