"""Policies that let short requests pass do not let too many pass one long request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.sched.overtaking import SHARE, SPARE, BoundedOvertaking

from .world import World


@pytest.mark.parametrize("name", ["mlfq", "program", "skip-predict"])
def test_a_stream_of_short_requests_passes_a_long_one_so_often(name: str) -> None:
    world = World(name, blocks=40, max_sequences=1, swap_blocks=200)
    long = world.add(100, 250, most=700)
    while long.id in world.live:
        while len(world.live) < 4:
            world.add(5, 2)
        world.step()
    assert len(world.finished_order) - 1 <= SPARE + 4
    assert len(world.finished_order) - 1 > SPARE // 2, "short ones do pass"


@given(st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=300))
def test_who_exceeds_was_passed_by_more_than_the_bound(moves: list[int | None]) -> None:
    """None: one arrives; a number: one of those present ends."""
    bound, present, came, passed = BoundedOvertaking(), list[int](), 0, dict[int, int]()
    found: dict[int, int] = {}
    for move in moves:
        if move is None:
            found[came], passed[came] = len(present), 0
            present.append(came)
            bound.added(came)
            came += 1
        elif present:
            gone = present.pop(move % len(present))
            bound.removed(gone)
            for other in present:
                passed[other] += other < gone
        for other in present:
            assert not bound.is_exceeded(other) or passed[other] > max(SPARE, SHARE * found[other])
