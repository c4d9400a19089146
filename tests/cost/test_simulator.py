"""The simulator: it does what the engine does, repeats itself exactly, and its parts check what they read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.cost.simulator import SimulatedMachine, simulate
from pelton.cost.simulator_cost import StepCost, StepLoad, fit
from pelton.cost.simulator_replay import replay
from pelton.cost.simulator_report import cells, fairness, figures_of, write_csv
from pelton.cost.simulator_trace import Call, Trace, TraceShape, agent_trace, read_trace, tokens_of
from pelton.engine import Engine
from pelton.errors import ConfigError
from pelton.exec.reference import ReferenceExecutor
from pelton.sched.registry import POLICIES
from pelton.terms import RequestTerms

from ..tiny import VOCAB, tiny_arena, tiny_plan, tiny_weights

COST = StepCost(0.002, 0.0003, 1e-8, 1e-5, block_bytes=1 << 16)
WEIGHTS = tiny_weights()
PLAN = tiny_plan(WEIGHTS)


def trace(calls: int = 40, rate: float = 60.0, seed: int = 0) -> Trace:
    shape = TraceShape(calls=calls, rate=rate, seed=seed, most=40, longest=180, beginning=40, tenants=2)
    return agent_trace(shape)


def limits_known(made: Trace) -> Trace:
    """Each call's limit is its answer's length: what a replay on an engine asks for."""
    calls = [Call(c.arrival, c.prompt, c.answer, len(c.answer), c.terms, c.after) for c in made.calls]
    return Trace(calls, made.name)


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"prefix-groups"}))
def test_order_and_times_are_the_engines(name: str) -> None:
    """One clock, two implementations of everything but the schedulers: the same completions, to the bit."""
    made = limits_known(trace()).below(VOCAB)
    engine = Engine(ReferenceExecutor(PLAN, WEIGHTS), tiny_arena(PLAN, 24), 256, 4, 32, prefix_cache=False)
    real = replay(engine, made, name, COST)
    machine = SimulatedMachine(COST, 24, 4, 32, swap_blocks=0, prefix_cache=False)
    simulated = simulate(made, name, machine)
    assert simulated.finished_order == real.finished_order
    assert [r.finished for r in simulated.results] == pytest.approx([r.finished for r in real.results])
    assert [r.first for r in simulated.results] == pytest.approx([r.first for r in real.results])
    assert len(real.finished_order) == len(made.calls)


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_trace_gives_the_same_figures(name: str) -> None:
    made, machine = trace(), SimulatedMachine(COST, 24, 4, 32, swap_blocks=24)
    one, other = (figures_of(simulate(made, name, machine)) for _ in range(2))
    assert one == other
    assert one.finished == len(made.calls)


def test_more_of_the_machine_serves_more() -> None:
    made = trace(calls=120, rate=400.0)
    small = SimulatedMachine(COST, 64, 4, 32)
    few, many = (figures_of(simulate(made, "token-budget", m)) for m in (small, small.scaled(8)))
    assert many.job_p50 < few.job_p50 / 2


def test_a_refused_call_is_reported() -> None:
    answer = np.zeros(5, np.int32)
    calls = [Call(0.0, np.zeros(500, np.int32), answer, 5), Call(0.0, np.zeros(5, np.int32), answer, 5)]
    figures = figures_of(simulate(Trace(calls), "mlfq", SimulatedMachine(COST, 8)))
    assert (figures.finished, figures.refused) == (1, 1)


@given(
    st.tuples(*[st.floats(0, 1)] * 4).filter(lambda c: c[0] + c[1] > 0.01),
    st.integers(0, 50),
)
@settings(max_examples=30)
def test_the_fit_finds_the_costs(coefficients: tuple[float, float, float, float], seed: int) -> None:
    random = np.random.default_rng(seed)
    fixed, row, attended, sequence = (
        c * u for c, u in zip(coefficients, (1e-2, 1e-3, 1e-6, 1e-4), strict=True)
    )
    true = StepCost(fixed, row, attended, sequence)
    rows, spans = random.integers(1, 512, 60), random.integers(1, 32, 60)
    loads = [
        StepLoad(int(r), int(r * random.integers(1, 2000)), int(s)) for r, s in zip(rows, spans, strict=True)
    ]
    found = fit(loads, [true.seconds(load) for load in loads])
    assert found.error < 0.01
    for load in loads[:10]:
        assert found.seconds(load) == pytest.approx(true.seconds(load), rel=0.02)


def test_costs_are_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    COST.save(path)
    assert StepCost.load(path) == COST
    for text in ("{", "[]", '{"fixed": -1, "row": 1, "attended": 0, "sequence": 0}', '{"row": 1}'):
        path.write_text(text)
        with pytest.raises(ConfigError):
            StepCost.load(path)


def test_a_trace_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"arrival": 0.5, "prompt_tokens": 40, "output_tokens": 3, "prefix": "a", "prefix_tokens": 30}\n\n'
        '{"prompt_tokens": 50, "output_tokens": 4, "prefix": "a", "prefix_tokens": 35, "max_tokens": 9,'
        ' "tenant": "t", "program": "p", "deadline": 2.5, "priority": -1, "after": 0, "arrival": 0.1}\n'
    )
    one, two = read_trace(path).calls
    assert (one.arrival, len(one.prompt), len(one.answer), one.most) == (0.5, 40, 3, 3)
    assert np.array_equal(one.prompt[:30], two.prompt[:30])
    assert (two.most, two.after) == (9, 0)
    assert two.terms == RequestTerms(priority=-1, deadline=2.5, tenant="t", program="p")


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("x", None),
        ("[1]", None),
        ('{"prompt_tokens": 4}', "output_tokens"),
        ('{"prompt_tokens": 1e9, "output_tokens": 1}', "prompt_tokens"),
        ('{"prompt_tokens": 4, "output_tokens": 5, "max_tokens": 2}', "max_tokens"),
        ('{"prompt_tokens": 4, "output_tokens": 1, "tenant": 3}', "tenant"),
        ('{"prompt_tokens": 4, "output_tokens": 1, "deadline": -3}', "deadline"),
        ('{"prompt_tokens": 4, "output_tokens": 1, "after": 7}', "after"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, field: str | None) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt_tokens": 4, "output_tokens": 1}\n' + line)
    with pytest.raises(ConfigError, match=r"mine\.jsonl:2") as caught:
        read_trace(path)
    assert caught.value.field == field


def test_words_become_the_same_tokens_everywhere() -> None:
    assert np.array_equal(tokens_of("a considerable word"), tokens_of("a  considerable\nword"))
    assert len(tokens_of("a considerable word")) == 4


def test_fairness() -> None:
    assert fairness({"a": 10.0, "b": 10.0}, {}) == (1.0, 0.0)
    assert fairness({"a": 20.0, "b": 10.0}, {"a": 2.0}) == (1.0, 0.0)
    jain, spread = fairness({"a": 10.0, "b": 0.0}, {})
    assert (jain, spread) == (0.5, 2.0)


def test_figures_go_to_a_table(tmp_path: Path) -> None:
    figures = figures_of(simulate(trace(calls=5), "fair", SimulatedMachine(COST, 24, 4, 32)))
    write_csv(tmp_path / "figures.csv", [cells(figures)])
    first, second = (tmp_path / "figures.csv").read_text().splitlines()
    assert first.split(",")[0] == "scheduler"
    assert second.split(",")[0] == "fair"
