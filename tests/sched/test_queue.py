"""The waiting queue against a sorted list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.sched.queue import RERANKED_AT_ONCE, SELDOM, SPARE_ENTRIES, WaitingQueue
from pelton.sched.sequence import Sequence

from .world import World


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "rank"]), st.integers(0, 9)), max_size=60))
@settings(max_examples=60)
def test_the_best_comes_first(actions: list[tuple[str, int]]) -> None:
    world, ranks = World("token-budget", blocks=2), dict[int, int]()
    queue = WaitingQueue(lambda sequence: (ranks[sequence.id],))
    held: list[Sequence] = []
    for action, number in actions:
        if action == "add":
            held.append(world.add(3, 1))
            ranks[held[-1].id] = number
            queue.add(held[-1])
        elif held and action == "remove":
            queue.remove(held.pop(number % len(held)))
        elif held:
            ranks[held[number % len(held)].id] = 9 - number
            queue.rank_again()
        expected = sorted(held, key=lambda s: ranks[s.id])
        assert len(queue) == len(held)
        if held:
            assert ranks[queue.best()[0].id] == ranks[expected[0].id]
            assert queue.longest_waiting() is held[0]
            assert [ranks[s.id] for s in queue.ordered(3)] == [ranks[s.id] for s in expected[:3]]


@pytest.mark.parametrize("looked_at", [True, False])
def test_who_has_left_is_not_kept(looked_at: bool) -> None:
    world = World("token-budget", blocks=2)
    queue = WaitingQueue(lambda sequence: (sequence.id,))
    stays = world.add(3, 1)
    queue.add(stays)
    for _ in range(500):
        passes = world.add(3, 1)
        queue.add(passes)
        if looked_at:
            assert list(queue.ordered(2)) == [stays, passes]
        queue.remove(passes)
    assert len(queue._heap) + len(queue._unranked) <= 2 + SPARE_ENTRIES
    assert queue.best()[0] is stays


def test_a_long_queue_is_ranked_anew_only_now_and_then() -> None:
    world, calls = World("token-budget", blocks=2), [0]

    def rank(sequence: Sequence) -> tuple[float, ...]:
        calls[0] += 1
        return (sequence.id,)

    queue = WaitingQueue(rank)
    for _ in range(RERANKED_AT_ONCE + 1):
        queue.add(world.add(3, 1))
    queue.best()
    before = calls[0]
    for _ in range(SELDOM):
        queue.rank_again()
    assert calls[0] - before == len(queue)
