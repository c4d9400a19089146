"""What each policy promises about order, on small traces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from pelton.sched.deadline import EarliestDeadline
from pelton.sched.fair import MOST_TENANTS, FairShares
from pelton.sched.mlfq import FIRST_QUANTUM, LEVELS, level_of
from pelton.sched.prefix_groups import common_blocks, grouped
from pelton.sched.program import ProgramAttainedService
from pelton.sched.registry import POLICIES
from pelton.sched.skip_predict import SkipPredict
from pelton.terms import ORDINARY, RequestTerms

from .world import World


def steps_to_end(world: World, sequence_id: int) -> int:
    while sequence_id not in world.ends:
        world.step()
    return world.steps


def test_first_come_is_first_served() -> None:
    world = World("token-budget", max_sequences=1)
    for size in (40, 10, 30):
        world.add(size, 5)
    world.run()
    assert world.finished_order == [0, 1, 2]


def test_a_step_never_stalls_decoding_for_a_prompt() -> None:
    for name in POLICIES:
        world = World(name, blocks=40, budget=8)
        first = world.add(5, 200)
        while not first.is_decoding:
            world.step()
        world.add(300, 1)
        said = first.num_outputs
        for _ in range(7):
            world.step()
        assert first.num_outputs >= said + 6, name  # one step in eight may go to who was paused


def test_queues_are_skipped_by_the_prompts_length() -> None:
    assert level_of(FIRST_QUANTUM) == 0
    assert [level_of(FIRST_QUANTUM * 2**n + 1) for n in range(3)] == [1, 2, 3]
    assert level_of(1e9) == LEVELS - 1


def test_short_requests_overtake_a_long_one_under_mlfq() -> None:
    ends = {}
    for name in ("token-budget", "mlfq"):
        world = World(name, blocks=30, max_sequences=1)
        world.add(8, 200)
        for _ in range(60):
            world.step()
        short = [world.add(8, 6).id for _ in range(3)]
        ends[name] = [steps_to_end(world, number) for number in short]
        world.run()
    assert max(ends["mlfq"]) < 90
    assert min(ends["token-budget"]) > 200


def served(world: World, tenants: dict[int, str]) -> dict[str, int]:
    """Rows by tenant."""
    rows: dict[str, int] = {}
    for number, count in world.rows_of.items():
        rows[tenants[number]] = rows.get(tenants[number], 0) + count
    return rows


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_tenants_share_by_weight_however_much_they_ask(weight: float) -> None:
    world = World("fair", blocks=60, max_sequences=4, weights={"light": weight})
    tenants = {}
    for index in range(60):
        tenant = "light" if index % 6 == 0 else "heavy"
        tenants[world.add(4, 60, RequestTerms(tenant=tenant)).id] = tenant
    for _ in range(150):
        world.step()
    rows = served(world, tenants)
    assert rows["light"] / rows["heavy"] == pytest.approx(weight, rel=0.2)
    world.run()


def test_idling_saves_up_nothing() -> None:
    policy, world = FairShares(), World("token-budget")
    busy = world.add(4, 5, RequestTerms(tenant="busy"))
    policy.added(busy, 0.0)
    for _ in range(100):
        policy.ran(world.step().planned if world.live else [], 0.0)
    for _ in range(1000):  # charged as if it had run
        policy._charged["busy"] += 1.0
    late = World("token-budget").add(4, 5, RequestTerms(tenant="late"))
    policy.added(late, 0.0)
    assert policy._charged["late"] >= policy._charged["busy"]


def test_tenants_may_come_in_any_number() -> None:
    policy, world = FairShares(), World("token-budget")
    stays = world.add(4, 5, RequestTerms(tenant="stays"))
    policy.added(stays, 0.0)
    for number in range(2 * MOST_TENANTS + 100):
        stays.terms = RequestTerms(tenant=f"t{number}")
        policy.added(stays, 0.0)
        assert policy.rank(stays, 0.0) == (0, 0)
        policy._charged[f"t{number}"] += 1.0
        policy.removed(stays, 0.0)
    assert len(policy._charged) <= 2 * MOST_TENANTS + 1
    assert "stays" in policy._charged


def test_a_forks_deadline_is_its_requests() -> None:
    world = World("deadline", max_sequences=4, blocks=30, budget=8)
    leader = world.add(60, 40, RequestTerms(deadline=0.3))
    while not leader.num_outputs:
        world.step()
    other = world.add(4, 40, RequestTerms(deadline=0.3))
    twin = world.fork(leader, 40)
    policy = world.scheduler._policy
    assert isinstance(policy, EarliestDeadline)
    assert policy._jobs[twin.id].due == policy._jobs[leader.id].due < policy._jobs[other.id].due
    world.run()


def test_priority_comes_before_shares() -> None:
    world = World("fair", max_sequences=1, blocks=30)
    world.add(4, 30, RequestTerms(priority=1, tenant="a"))
    world.add(4, 30, RequestTerms(priority=0, tenant="b"))
    world.add(4, 30, RequestTerms(priority=0, tenant="b"))
    world.run()
    assert world.finished_order == [1, 2, 0]


def test_a_new_program_overtakes_a_long_ones_next_call() -> None:
    world = World("program", max_sequences=1, blocks=30)
    for _ in range(3):
        steps_to_end(world, world.add(4, 80, RequestTerms(program="long")).id)
    world.add(4, 30, RequestTerms(program="long"))
    world.step()
    world.add(4, 10, RequestTerms(program="new"))
    world.run()
    assert world.finished_order[-2:] == [4, 3]


def test_a_program_has_attained_its_longest_chain_of_calls() -> None:
    policy, world = ProgramAttainedService(), World("token-budget", max_sequences=8, blocks=40)
    terms = RequestTerms(program="p")

    def call(count: int, length: int) -> None:
        calls = [world.add(1, length, terms) for _ in range(count)]
        for sequence in calls:
            policy.added(sequence, world.now)
        while world.live:
            before = dict(world.live)
            planned = world.scheduler.schedule().planned
            policy.ran(planned, world.now)
            for item in planned:
                world._run(item)
            for number in before.keys() - world.live.keys():
                policy.removed(before[number], world.now)

    call(1, 10)
    assert policy.attained("", "p") == pytest.approx(10, abs=1)
    call(1, 10)  # one after the other: they add up
    assert policy.attained("", "p") == pytest.approx(20, abs=2)
    call(5, 10)  # side by side: one step of the chain
    assert policy.attained("", "p") == pytest.approx(30, abs=3)


def test_the_earliest_deadline_that_can_be_met_runs_first() -> None:
    world = World("deadline", max_sequences=1, blocks=30)
    warm = world.add(4, 10)
    steps_to_end(world, warm.id)
    world.add(4, 10, RequestTerms(deadline=0.001))  # 1: late whatever happens
    world.add(4, 10, ORDINARY)  # 2
    world.add(4, 10, RequestTerms(deadline=900.0))  # 3
    world.add(4, 10, RequestTerms(deadline=300.0))  # 4
    world.run()
    assert world.finished_order == [0, 4, 3, 2, 1]


def repeated(world: World, count: int) -> Iterator[int]:
    """Two programs whose answers are always 4 and 90 tokens, which a predictor can learn."""
    for index in range(count):
        program, length = (("terse", 4), ("wordy", 90))[index % 2]
        yield world.add(12, length, RequestTerms(program=program), most=300).id
        for _ in range(20):
            world.step()


def test_memory_is_set_aside_for_the_predicted_answer() -> None:
    preempted, steps = {}, {}
    for name in ("token-budget", "predicted-length"):
        world = World(name, blocks=16, max_sequences=12, budget=48)
        list(repeated(world, 60))
        world.run()
        start = world.steps
        sequences = [
            world.add(12, 90 if i % 2 else 4, RequestTerms(program=("terse", "wordy")[i % 2]), most=300)
            for i in range(40)
        ]
        world.run()
        preempted[name] = sum(s.preemptions for s in sequences)
        steps[name] = world.steps - start
    assert preempted["predicted-length"] < preempted["token-budget"] / 2
    # Setting aside all 312 slots would let one sequence run at a time: 20 x 90 steps and more.
    assert steps["predicted-length"] < 1000


def test_costly_predictions_are_for_the_long_ones() -> None:
    world = World("skip-predict", blocks=60, max_sequences=4, budget=48)
    policy = world.scheduler._policy
    assert isinstance(policy, SkipPredict)
    for index in range(80):
        program, length = (("terse", 4), ("wordy", 200))[index % 4 == 3]
        world.add(12, length, RequestTerms(program=program), most=300)
        for _ in range(15):
            world.step()
    world.run()
    before = policy.cheap_predictions, policy.costly_predictions
    for index in range(40):
        program, length = (("terse", 4), ("wordy", 200))[index % 4 == 0]
        world.add(12, length, RequestTerms(program=program), most=300)
    world.run()
    assert policy.cheap_predictions - before[0] == 40
    assert policy.costly_predictions - before[1] <= 14
    last = world.finished_order[-40:]
    longs = [place for place, number in enumerate(last) if number % 4 == 0]
    assert min(longs) >= 24  # all but a few by age go after the short ones


def test_common_beginnings_are_neighbours() -> None:
    random = np.random.default_rng(0)
    beginnings = [random.integers(0, 50, 96).astype(np.int32) for _ in range(4)]
    prompts = [
        np.concatenate([beginnings[i % 4], random.integers(0, 50, 9)]).astype(np.int32) for i in range(20)
    ]
    order = grouped(prompts, [5] * 20)
    assert sorted(order) == list(range(20))
    changes = sum(a % 4 != b % 4 for a, b in pairwise(order))
    assert changes == 3
    assert common_blocks(prompts[0], prompts[4]) == 3
    assert common_blocks(prompts[0], prompts[1]) == 0
    assert grouped(prompts, [500 if i % 4 == 2 else 5 for i in range(20)])[0] % 4 == 2


def test_what_a_batch_shares_is_computed_once() -> None:
    rows = {}
    for name in ("token-budget", "prefix-groups"):
        world = World(name, blocks=24, max_sequences=8, budget=64, cached=True)
        random = np.random.default_rng(1)
        beginnings = [random.integers(0, 50, 160).astype(np.int32) for _ in range(6)]
        for index in range(36):
            own = random.integers(0, 50, 20).astype(np.int32)
            world.add(np.concatenate([beginnings[index % 6], own]), 8)
        world.run()
        rows[name] = world.computed_rows
    least = 6 * 160 + 36 * (20 + 8)
    assert rows["prefix-groups"] < 1.1 * least
    assert rows["token-budget"] > 1.5 * rows["prefix-groups"]


@pytest.mark.parametrize("name", POLICIES)
def test_nobody_starves_while_favourites_keep_coming(name: str) -> None:
    """A long request of low priority without a deadline against an endless stream of short ones."""
    world = World(name, blocks=12, max_sequences=2, budget=16)
    mine = RequestTerms(priority=5, tenant="greedy", program="greedy")
    steps_to_end(world, world.add(40, 90, mine).id)
    victim = world.add(120, 60, mine)
    for step in range(6000):
        if step % 4 == 0 and world.scheduler.num_waiting < 10:
            world.add(6, 5, RequestTerms(priority=-5, tenant=f"t{step}", deadline=50.0))
        world.step()
        if victim.id in world.ends:
            break
    assert world.ends.get(victim.id) == "finished", f"{victim.num_outputs} tokens after {world.steps} steps"
