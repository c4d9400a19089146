"""Preemption by swap or by computing again: the cheaper by measurement, and the same bits back."""

from __future__ import annotations

from pelton.sched.sequence import Sequence
from pelton.sched.swapping import SwapOrRecompute

from .world import World


def preempted(copy_speed: float, row: float) -> tuple[World, SwapOrRecompute, Sequence]:
    """A world where one sequence of 70 computed tokens was pushed out."""
    world = World("token-budget", blocks=20, budget=64, swap_blocks=20)
    assert isinstance(world.preemption, SwapOrRecompute)
    sequence = world.add(70, 30)
    while sequence.num_outputs < 5:
        world.step()
    world.preemption._rates.copy_bytes_per_second = copy_speed
    world.preemption._rates.row = row
    world.scheduler._victims.evict(sequence, None)
    return world, world.preemption, sequence


def test_slow_copies_mean_computing_again() -> None:
    world, preemption, sequence = preempted(copy_speed=1.0, row=1e-6)
    assert (preemption.swapped, preemption.recomputed) == (0, 1)
    assert sequence.computed == 0
    world.run()


def test_fast_copies_bring_the_blocks_back() -> None:
    world, preemption, _ = preempted(copy_speed=1e12, row=1e-3)
    assert (preemption.swapped, preemption.recomputed) == (1, 0)
    rows = world.computed_rows
    world.run()  # each step compares what lies in the slots with what was computed
    assert world.computed_rows - rows == 30 - 5


def test_unchanged_blocks_are_not_copied_twice() -> None:
    world, preemption, sequence = preempted(copy_speed=1e12, row=1e-3)
    first = preemption._space.blocks_copied
    while sequence.num_outputs < 8:
        world.step()
    world.scheduler._victims.evict(sequence, None)
    assert first == 3
    assert preemption._space.blocks_copied - first == 3 + 1  # back, and out again only the last
    world.run()


def test_a_copy_made_before_a_roll_back_is_not_used_beyond_it() -> None:
    world, preemption, sequence = preempted(copy_speed=1e12, row=1e-3)
    while sequence not in world.scheduler.running:
        world.step()
    sequence.roll_back(70)
    sequence._tokens[70:] = 0
    world.marks[sequence.id].known = 70
    sequence.append(17)  # another continuation
    for _ in range(4):
        world.step()
    world.scheduler._victims.evict(sequence, None)
    assert preemption.swapped == 2
    world.run()


def test_likely_victims_are_copied_beside_the_step() -> None:
    world = World("mlfq", blocks=8, max_sequences=1, budget=64, swap_blocks=20)
    preemption = world.preemption
    assert isinstance(preemption, SwapOrRecompute)
    preemption._rates.copy_bytes_per_second = 1e12
    long = world.add(190, 30)
    while long.num_outputs < 8:
        world.step()
    preemption.settle()
    ahead = preemption._space.blocks_copied
    assert ahead == 6  # all full blocks are safe before anyone asks for them
    short = world.add(60, 3)
    while short.id not in world.ends:
        world.step()
    assert long.preemptions == 1
    assert preemption.swapped == 1
    world.run()


def test_what_is_over_leaves_no_copy() -> None:
    world, preemption, sequence = preempted(copy_speed=1e12, row=1e-3)
    world.abort(sequence)
    assert preemption._space.bytes_used == 0
    assert not preemption._copies
