"""A timeline accounts for a step's whole time, and leaves the engine as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pelton import LLM, SamplingParams
from pelton.cost.timeline import Timeline, record
from pelton.exec.native import NativeExecutor

from ..cli.calling import call, environment

MODEL = "synthetic:llama-135m?layers=2&context=256"
PROMPTS = [[1, 2, 3], [4, 5, 6, 7]]
PARAMS = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def recorded() -> tuple[Timeline, list[list[int]], list[list[int]]]:
    """A timeline, the tokens generated while it was taken, and the same without one."""
    with LLM(MODEL, threads=2) as llm:
        executor = llm.engine.executor
        assert isinstance(executor, NativeExecutor)
        states = [llm.requests.add(prompt, PARAMS) for prompt in PROMPTS]
        timeline = record(llm, executor, states, 100)
        traced = [state.snapshot().outputs[0].token_ids for state in states]
        assert llm.engine.executor is executor
        plain = [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS)]
    return timeline, traced, plain


def test_recording_changes_no_token(recorded: tuple[Timeline, list[list[int]], list[list[int]]]) -> None:
    timeline, traced, plain = recorded
    assert traced == plain
    assert len(timeline.steps) == 8
    assert timeline.threads == 2


def test_shares_add_up_to_the_step(recorded: tuple[Timeline, list[list[int]], list[list[int]]]) -> None:
    timeline, _, _ = recorded
    shares = timeline.shares()
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-9)
    assert {"schedule and batch", "copy in", "barrier wait", "attend"} <= set(shares)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_every_mark_lies_in_a_step(recorded: tuple[Timeline, list[list[int]], list[list[int]]]) -> None:
    timeline, _, _ = recorded
    first, last = timeline.steps[0][0], timeline.steps[-1][1]
    assert all(first <= mark.start <= mark.end <= last for mark in timeline.marks)
    assert all(0 <= mark.wait <= mark.length for mark in timeline.marks)


def test_the_command_writes_a_chrome_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    arguments = ("bench", "trace", "-m", MODEL, "--steps", "4", "--sequences", "2", "-d", "8", "-t", "2")
    result = call(*arguments, "-o", str(path), env=environment(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "4 steps of" in result.stdout
    assert "barrier wait" in result.stdout
    events = json.loads(path.read_text(encoding="utf-8"))
    complete = [event for event in events if event["ph"] == "X"]
    assert {event["tid"] for event in complete} == {0, 1, 2}
    assert sum(event["name"].startswith("step ") for event in complete) == 4
    assert all(event["dur"] >= 0 for event in complete)
    assert {event["args"]["name"] for event in events if event["ph"] == "M"} >= {"Python", "thread 0"}
