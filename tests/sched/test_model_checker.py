"""Every scheduler under random arrivals, aborts and forks: what holds of each step and each trace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pelton.sched.registry import POLICIES
from pelton.sched.victims import MOST_PREEMPTIONS
from pelton.terms import RequestTerms

from .world import World

MOST_QUIET = 50
"""Steps without a token, besides those that all prompts so far take to run once."""
MOST_STILL = 50
"""Steps that bring nobody further than it had been: what was preempted is computed again."""
terms = st.builds(
    RequestTerms,
    priority=st.integers(-1, 1),
    deadline=st.one_of(st.none(), st.floats(0.01, 3.0)),
    tenant=st.sampled_from(["", "a", "b", "c"]),
    program=st.sampled_from(["", "p", "q"]),
)


class Checker(RuleBasedStateMachine):
    """World checks each step; here the trace: nobody is lost, nothing stands still, all memory comes back."""

    name = "token-budget"

    @initialize(
        blocks=st.integers(3, 14),
        max_sequences=st.integers(1, 6),
        budget=st.integers(8, 48),
        swap=st.sampled_from([0, 4, 64]),
        cached=st.booleans(),
    )
    def begin(self, blocks: int, max_sequences: int, budget: int, swap: int, cached: bool) -> None:
        self.world = World(self.name, blocks, max_sequences, budget, swap, cached)

    @rule(size=st.integers(1, 150), length=st.integers(1, 80), spare=st.integers(0, 200), terms=terms)
    def arrive(self, size: int, length: int, spare: int, terms: RequestTerms) -> None:
        self.world.add(size, length, terms, length + spare)

    @rule(size=st.integers(33, 120), length=st.integers(1, 40))
    def arrive_with_a_known_beginning(self, size: int, length: int) -> None:
        self.world.add((np.arange(size) % 50).astype(np.int32), length)

    @rule(count=st.integers(1, 25))
    def run(self, count: int) -> None:
        for _ in range(count):
            self.world.step()

    @precondition(lambda self: self.world.live)
    @rule(which=st.integers(0, 99))
    def abort(self, which: int) -> None:
        live = list(self.world.live.values())
        self.world.abort(live[which % len(live)])

    @precondition(lambda self: any(s.is_decoding for s in self.world.scheduler.running))
    @rule(which=st.integers(0, 99), length=st.integers(1, 60))
    def fork(self, which: int, length: int) -> None:
        decoding = [s for s in self.world.scheduler.running if s.is_decoding]
        self.world.fork(decoding[which % len(decoding)], length)

    @invariant()
    def moves_on(self) -> None:
        assert self.world.longest_still <= MOST_STILL
        assert self.world.longest_quiet <= MOST_QUIET + self.world.prompt_rows // self.world.budget

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.run()
            self.moves_on()
            assert len(self.world.ends) == self.world.added


def check(name: str, traces: int) -> None:
    machine = type(f"Checker_{name.replace('-', '_')}", (Checker,), {"name": name})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=traces,
            stateful_step_count=25,
            deadline=None,
            database=None,
            phases=[
                Phase.generate
            ],  # making a failing trace shorter took minutes, and hid that there was one
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("name", POLICIES)
def test_random_traces(name: str) -> None:
    check(name, 15)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", POLICIES)
def test_ten_thousand_random_traces(name: str) -> None:
    check(name, -(-10_000 // len(POLICIES)))


def test_forks_give_way_to_a_firm_claim_that_they_share() -> None:
    """All blocks are one sequence's and its forks', none can be written, and the forks are the better ones:
    under `program` this stood still for 3,970 steps."""
    world = World("program", blocks=4, max_sequences=6, budget=200)
    first = world.add(100, 26)
    first.preemptions = MOST_PREEMPTIONS - 1  # its next start is with a firm claim
    while first.num_outputs < 20:
        world.step()
    for _ in range(3):
        world.fork(first, 26)
    world.run()
    assert world.longest_still <= 1
    assert set(world.ends.values()) == {"finished"}
