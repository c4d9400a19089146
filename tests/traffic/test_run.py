"""Load on a real server: what the report says is what the server did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pelton.errors import ConfigError
from pelton.traffic.arrivals import Arrivals
from pelton.traffic.client import Exchange, Target
from pelton.traffic.report import Objectives, parse_objectives, summarize
from pelton.traffic.run import drive, served_model
from pelton.traffic.workload import WorkloadShape, make_workload

from ..cli.calling import call
from ..serve.serving import NAME, Served, serving


@pytest.fixture(scope="module")
def served(real_model_path: Path) -> Iterator[Served]:
    with serving(real_model_path) as served:
        yield served


def test_sessions_run_to_their_end(served: Served) -> None:
    shape = WorkloadShape(sessions=3, turns=2, prefix_words=20, input_words=8, output_tokens=6)
    target = Target(served.url, NAME, extra={"ignore_eos": True})
    exchanges, elapsed = asyncio.run(drive(target, make_workload("agent", shape), Arrivals()))
    summary = summarize(exchanges, elapsed, Objectives())
    assert [exchange.error for exchange in exchanges] == [None] * 6
    assert (summary.completed, summary.failed, summary.output_tokens) == (6, 0, 36)
    assert 1 <= summary.peak_concurrent <= 3
    assert all(e.arrivals == sorted(e.arrivals) and e.ttft <= e.end for e in exchanges)
    later = [e for e in exchanges if e.session == "agent-1"]
    assert later[1].prompt_tokens > later[0].prompt_tokens + later[0].completion_tokens


def test_a_closed_loop_keeps_to_its_width(served: Served) -> None:
    sessions = make_workload("random", WorkloadShape(sessions=5, input_words=4, output_tokens=3))
    exchanges, elapsed = asyncio.run(drive(Target(served.url, NAME), sessions, Arrivals(concurrency=2)))
    summary = summarize(exchanges, elapsed, Objectives())
    assert summary.completed == 5
    assert summary.peak_concurrent <= 2


def test_a_refusal_is_counted_not_raised(served: Served) -> None:
    sessions = make_workload("random", WorkloadShape(sessions=2, input_words=4, output_tokens=3))
    exchanges, elapsed = asyncio.run(drive(Target(served.url, "another"), sessions, Arrivals()))
    summary = summarize(exchanges, elapsed, parse_objectives(["ttft:60000"]))
    assert (summary.completed, summary.failed, summary.good) == (0, 2, 0)
    assert all(exchange.status == 404 and "another" in str(exchange.error) for exchange in exchanges)


def test_the_command_reports_and_saves(served: Served, tmp_path: Path) -> None:
    saved = tmp_path / "result.json"
    common = ("bench", "serve", "--base-url", f"{served.url}/v1", "--workload", "random")
    size = ("--num-prompts", "3", "--output-len", "4", "--input-words", "5", "--warm")
    result = call(*common, *size, "--goodput", "ttft:60000", "--save-result", str(saved))
    assert result.exit_code == 0, result.stderr
    for column in (
        "Successful requests",
        "Output token throughput (tok/s)",
        "Request goodput (req/s)",
        "TPOT",
    ):
        assert column in result.stdout
    (run,) = json.loads(saved.read_text(encoding="utf-8"))["runs"]
    assert (run["completed"], run["output_tokens"], run["good"]) == (3, 12, 3)


def test_where_no_server_is_one_line_says_so() -> None:
    result = call("bench", "serve", "--base-url", "http://127.0.0.1:9", "--workload", "random")
    assert result.exit_code == 1
    assert "no server answers there" in result.stderr


def exchange(ttft: float, end: float, tokens: int, cached: int | None = None) -> Exchange:
    return Exchange(
        "s", 0.0, [ttft, end], end, "text", prompt_tokens=100, cached_tokens=cached, completion_tokens=tokens
    )


def test_figures_are_what_they_are_called() -> None:
    failed = Exchange("s", 0.0, error="500", end=9.0)
    summary = summarize(
        [exchange(0.5, 2.5, 21, 32), exchange(1.5, 2.0, 6, 0), failed], 4.0, parse_objectives(["ttft:1000"])
    )
    assert (summary.ttft.mean, summary.ttft.p50) == (1000.0, 1000.0)
    assert summary.tpot.mean == pytest.approx(100.0)
    assert summary.output_throughput == pytest.approx(27 / 4)
    assert (summary.good, summary.goodput, summary.failed) == (1, 0.25, 1)
    assert summary.cached_share == pytest.approx(0.16)
    assert summarize([exchange(1, 2, 3)], 1.0, Objectives()).cached_tokens is None


@pytest.mark.parametrize("text", ["ttft", "ttft:0", "ttft:nan", "latency:5", "tpot:x"])
def test_objectives_are_checked(text: str) -> None:
    with pytest.raises(ConfigError, match="goodput"):
        parse_objectives([text])


def test_the_served_model_is_asked_for(served: Served) -> None:
    assert asyncio.run(served_model(served.url, None)) == NAME
