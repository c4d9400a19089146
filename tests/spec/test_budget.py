"""How long drafts become: what is likely to raise tokens a second, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.sched.rates import StepRates
from pelton.spec.budget import Acceptance, FixedBudget, GoodputBudget
from pelton.spec.draft import MOST_DRAFTED

SEEN = st.builds(Acceptance, st.floats(0, 40), st.floats(0, 20))
COSTS = st.builds(StepRates, st.floats(1e-4, 1), st.floats(1e-5, 0.1))


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


def test_long_steps_teach_nothing_about_short_ones() -> None:
    costs = StepRates(fixed=0.004, row=0.0004)
    GoodputBudget(costs).observe(512, 3.0)
    assert (costs.fixed, costs.row) == (0.004, 0.0004)


def test_a_fixed_budget_is_what_it_says() -> None:
    assert FixedBudget(3).most(Acceptance(), 1) == FixedBudget(3).most(Acceptance(0.0, 20.0), 100) == 3
