"""How long drafts become: what is likely to raise tokens a second, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.sched.rates import StepRates
from pelton.spec.budget import Acceptance, FixedBudget, GoodputBudget
from pelton.spec.draft import MOST_DRAFTED

SEEN = st.builds(Acceptance, st.floats(0, 40), st.floats(0, 20))
COSTS = st.builds(StepRates, st.floats(0.1, 1), st.floats(0.02, 0.3))


def goodput(rate: float, costs: StepRates, length: int) -> float:
    """Expected tokens a second of one sequence that drafts so many."""
    tokens = sum(rate**place for place in range(length + 1))
    return tokens / costs.seconds(1 + length)


@given(seen=SEEN, costs=COSTS)
def test_the_length_is_the_one_of_the_best_goodput(seen: Acceptance, costs: StepRates) -> None:
    budget = GoodputBudget(costs)
    chosen = goodput(seen.rate, costs, budget.most(seen, 1))
    best = max(goodput(seen.rate, costs, length) for length in range(budget.longest + 1))
    assert chosen == pytest.approx(best)


@given(seen=SEEN, costs=COSTS, sequences=st.integers(1, 200))
def test_a_row_among_more_sequences_has_to_bring_more(
    seen: Acceptance, costs: StepRates, sequences: int
) -> None:
    budget = GoodputBudget(costs)
    assert budget.most(seen, sequences + 1) <= budget.most(seen, sequences) <= budget.longest


def test_where_a_row_costs_a_tokens_time_nothing_is_drafted() -> None:
    saturated = GoodputBudget(StepRates(fixed=1e-6, row=1e-3))
    assert saturated.most(Acceptance(40.0, 0.0), 48) == 0


def test_wrong_drafts_end_drafting_and_rest_brings_it_back() -> None:
    budget, seen = GoodputBudget(StepRates(fixed=0.004, row=0.0008)), Acceptance()
    assert budget.most(seen, 1) > 0
    tried = 0
    while budget.most(seen, 1) and tried < 100:
        seen.saw(4, 0)
        tried += 1
    assert 0 < tried < 100
    rested = 0
    while not budget.most(seen, 1) and rested < 1000:
        seen.rested()
        rested += 1
    assert 0 < rested < 1000


def test_right_drafts_grow() -> None:
    budget, seen = GoodputBudget(StepRates(fixed=0.004, row=0.0004)), Acceptance()
    before = budget.most(seen, 1)
    for _ in range(10):
        seen.saw(4, 4)
    assert before < budget.most(seen, 1) == budget.longest


@given(drafted=st.integers(1, MOST_DRAFTED), data=st.data())
def test_a_rate_is_a_probability(drafted: int, data: st.DataObject) -> None:
    seen = Acceptance()
    for _ in range(5):
        seen.saw(drafted, data.draw(st.integers(0, drafted)))
        assert 0 < seen.rate < 1


def budget_on(machine: float, slope: float, steps: int = 400) -> GoodputBudget:
    """That has seen steps of a machine, the first of them slow, on which a row takes `slope` of the rest."""
    budget = GoodputBudget(StepRates(fixed=1.0, row=0.1))
    for step in range(steps):
        rows = (1, 1, 5, 1, 9, 17)[step % 6]
        budget.observe(rows, machine * (1 + slope * rows) * (30 if step < 3 else 1))
    return budget


@pytest.mark.parametrize("machine", [1e-4, 0.005, 0.2, 30.0])
@pytest.mark.parametrize("slope", [0.03, 0.1, 0.5])
def test_what_rows_cost_is_learnt_on_quick_and_slow_machines(machine: float, slope: float) -> None:
    costs = budget_on(machine, slope).costs
    assert costs.row / costs.fixed == pytest.approx(slope, rel=0.05)


@pytest.mark.parametrize("stall", [0.5, 5.0, 500.0])
def test_a_machine_that_stalls_once_drafts_on(stall: float) -> None:
    budget, seen = budget_on(0.005, 0.1), Acceptance(6.0, 2.0)
    before = budget.most(seen, 1)
    budget.observe(9, stall)
    assert 0 < budget.most(seen, 1) <= before
    for step in range(200):
        budget.observe((1, 1, 5)[step % 3], 0.005 * (1 + 0.1 * (1, 1, 5)[step % 3]))
    assert budget.most(seen, 1) == before


def test_long_steps_teach_nothing_about_short_ones() -> None:
    budget = budget_on(0.005, 0.1)
    before = budget.costs.fixed, budget.costs.row
    budget.observe(512, 3.0)
    assert (budget.costs.fixed, budget.costs.row) == before


@given(seen=SEEN, costs=COSTS, sequences=st.integers(1, 200))
def test_others_keep_their_rows(seen: Acceptance, costs: StepRates, sequences: int) -> None:
    assert sequences * GoodputBudget(costs).most(seen, sequences) <= MOST_DRAFTED


def test_now_and_then_a_token_is_tried() -> None:
    budget, seen = GoodputBudget(StepRates(fixed=1e-3, row=1.0)), Acceptance()
    lengths = []
    for _ in range(200):
        lengths.append(budget.most(seen, 48))
        if lengths[-1]:
            seen.saw(lengths[-1], 0)
        else:
            seen.rested()
    assert 1 <= sum(lengths) <= 4
    assert max(lengths) == 1


def test_a_fixed_budget_is_what_it_says() -> None:
    assert FixedBudget(3).most(Acceptance(), 1) == FixedBudget(3).most(Acceptance(0.0, 20.0), 100) == 3
