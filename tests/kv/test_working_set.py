"""A prefix cache takes its own stale blocks before memory that was never used, until they are missed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.types import BLOCK_SIZE

from .test_prefix import Bench, Run

MANY = 400
Prompt = list[int]


def prompt(number: int, blocks: int = 4) -> Prompt:
    """Tokens of whole blocks and one more, like no other number's."""
    return [number * 1000 + i for i in range(blocks * BLOCK_SIZE + 1)]


def touched(bench: Bench) -> int:
    """Blocks that were ever written."""
    return sum(any(slot is not None for slot in block) for block in bench.content)


@pytest.mark.parametrize("window", [0, 10, 50])
def test_memory_stays_at_the_window_and_what_runs(window: int) -> None:
    bench = Bench(MANY, window)
    for number in range(60):
        bench.run(prompt(number))
    running = 5
    assert window <= touched(bench) <= window + 3 * running
    bench.cache.check()


def test_without_a_window_the_whole_pool_fills() -> None:
    bench = Bench(MANY)
    for number in range(60):
        bench.run(prompt(number))
    assert touched(bench) == 60 * 5


def test_what_is_asked_for_again_within_the_window_stays() -> None:
    bench = Bench(MANY, 20)
    bench.run(prompt(0))
    for number in range(1, 40):
        bench.run(prompt(number))
        assert bench.run(prompt(0)) == len(prompt(0)) - 1
    assert touched(bench) < 60


@given(sessions=st.integers(2, 40), blocks=st.integers(1, 6), window=st.integers(0, 30))
def test_after_one_miss_all_sessions_of_a_round_are_found(sessions: int, blocks: int, window: int) -> None:
    """Users take turns: whatever the window was at first, it becomes as wide as their round."""
    bench = Bench(MANY, window)
    rounds = [sum(bench.run(prompt(user, blocks)) for user in range(sessions)) for _ in range(4)]
    assert rounds[0] == 0
    assert rounds[3] == sessions * blocks * BLOCK_SIZE
    bench.cache.check()


def test_other_prefixes_with_the_same_blocks_widen_nothing() -> None:
    bench = Bench(MANY, 10)
    for number in range(60):
        bench.run([number, *prompt(7)[1:]])  # the same blocks from the second on, behind another first one
    assert bench.cache.working_set.window == 10


def test_running_sequences_take_new_memory_however_much_rests() -> None:
    bench = Bench(MANY, 0)
    bench.run(prompt(0))
    runs = [Run(bench, "", prompt(number)) for number in range(1, 70)]
    for run in runs:
        run.compute(len(run.tokens))
    for run in runs:
        run.check()
    assert touched(bench) == 69 * 5
    bench.pool.check([run.table for run in runs])
