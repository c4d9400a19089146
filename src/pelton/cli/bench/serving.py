"""`pelton bench serve`: load on any OpenAI-compatible server, reported in vLLM's columns."""

from __future__ import annotations

import asyncio
import json as json_module
import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import note, say, say_json, say_table
from ..options import Json

if TYPE_CHECKING:
    from ...traffic.arrivals import Arrivals
    from ...traffic.client import Target
    from ...traffic.report import Objectives, Spread, Summary
    from ...traffic.workload import Session

EXIT_NONE_SUCCEEDED = 1
EXIT_SOME_FAILED = 3
"""As `pelton run-batch` ends."""
_WARM_SHARE = 0.1
_UNSHARED = ("sharegpt", "random")


@dataclass(frozen=True)
class TrafficFlags:
    """What is asked and when: fields of WorkloadShape and Arrivals under vLLM's names."""

    workload: Annotated[
        str,
        typer.Option("--workload", "--dataset-name", help="sharegpt, random, shared-prefix or agent."),
    ] = "sharegpt"
    dataset_path: Annotated[
        Path | None, typer.Option("--dataset-path", help="A ShareGPT file instead of the installed one.")
    ] = None
    num_prompts: Annotated[int, typer.Option("--num-prompts", help="Sessions; an agent has --turns.")] = 48
    output_len: Annotated[int, typer.Option("--output-len", help="Tokens of each answer.")] = 96
    input_words: Annotated[int, typer.Option("--input-words", help="Words of a made-up message.")] = 64
    prefix_words: Annotated[int, typer.Option("--prefix-words", help="Words of a shared beginning.")] = 600
    turns: Annotated[int, typer.Option("--turns", help="Requests of one agent.")] = 6
    request_rate: Annotated[
        float, typer.Option("--request-rate", help="Sessions a second; all at once if not given.")
    ] = math.inf
    burstiness: Annotated[
        float, typer.Option("--burstiness", help="1: Poisson; less: bursts; more: regular.")
    ] = 1.0
    max_concurrency: Annotated[
        int | None, typer.Option("--max-concurrency", help="Sessions under way at most: a closed loop.")
    ] = None
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos/--stop-at-eos", help="Answers of exactly --output-len tokens.")
    ] = True
    seed: Annotated[int, typer.Option("--seed")] = 0

    def sessions(self, runs: int) -> list[list[Session]]:
        """Sessions of each run; no run asks what another asked, or a cache would answer for the server."""
        from ...traffic.workload import WorkloadShape, make_workload

        shape = WorkloadShape(
            sessions=self.num_prompts * runs,
            output_tokens=self.output_len,
            input_words=self.input_words,
            prefix_words=self.prefix_words,
            turns=self.turns,
            seed=self.seed,
            file=self.dataset_path,
        )
        made = make_workload(self.workload, shape)
        ends = [len(made) * run // runs for run in range(runs + 1)]
        return [made[begin:end] for begin, end in pairwise(ends)]

    def arrivals(self) -> Arrivals:
        from ...traffic.arrivals import Arrivals

        return Arrivals(
            rate=self.request_rate,
            burstiness=self.burstiness,
            concurrency=self.max_concurrency,
            seed=self.seed,
        )


def serve(
    *,
    traffic: TrafficFlags,
    base_url: Annotated[str, typer.Option("--base-url", help="The server.")] = "http://127.0.0.1:8000",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Its model; the first it lists if not given.")
    ] = None,
    api_key: Annotated[str | None, typer.Option("--api-key", envvar="PELTON_API_KEY")] = None,
    goodput: Annotated[
        list[str] | None, typer.Option("--goodput", help="ttft:MS, tpot:MS or e2el:MS; may be repeated.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="Rates to try in turn, such as 1,2,4: where do SLOs break?")
    ] = None,
    extra_body: Annotated[str, typer.Option("--extra-body", help="JSON fields for every request.")] = "{}",
    warm: Annotated[bool, typer.Option("--warm", help="Measure a warm cache on purpose.")] = False,
    save_result: Annotated[Path | None, typer.Option("--save-result", help="Write the JSON there.")] = None,
    json: Json = False,
) -> None:
    """Put load on a server and report throughput, latencies, goodput, and what its cache saved it."""
    from ...traffic.report import parse_objectives

    objectives = parse_objectives(goodput or [])
    arrivals = traffic.arrivals()
    rates = [arrivals.rate] if sweep is None else _rates(sweep)
    target = _target(base_url, model, api_key, _fields(extra_body, traffic.ignore_eos))
    results = []
    for rate, sessions in zip(rates, traffic.sessions(len(rates)), strict=True):
        summary = run(target, sessions, replace(arrivals, rate=rate), objectives)
        results.append({"request_rate": None if math.isinf(rate) else rate, **document(summary)})
        if not json:
            _say(rate, summary, objectives, is_sweep=sweep is not None)
        if traffic.workload in _UNSHARED and not warm:
            _refuse_warm(summary)
    whole = {"workload": traffic.workload, "model": target.model, "base_url": target.url, "runs": results}
    if json:
        say_json(whole)
    if save_result is not None:
        save_result.write_text(json_module.dumps(whole, indent=2) + "\n", encoding="utf-8")
    if any(result["failed"] for result in results):
        has_any = any(result["completed"] for result in results)
        raise typer.Exit(EXIT_SOME_FAILED if has_any else EXIT_NONE_SUCCEEDED)


def _say(rate: float, summary: Summary, objectives: Objectives, *, is_sweep: bool) -> None:
    if is_sweep:
        _say_rate(rate, summary, objectives)
    else:
        _say_summary(summary, objectives)


def run(target: Target, sessions: list[Session], arrivals: Arrivals, objectives: Objectives) -> Summary:
    """One run from start to end."""
    from ...traffic.report import summarize
    from ...traffic.run import drive

    exchanges, elapsed = asyncio.run(drive(target, sessions, arrivals))
    failure = next((exchange.error for exchange in exchanges if exchange.error), None)
    if failure is not None:
        note(f"{sum(not e.succeeded for e in exchanges)} of {len(exchanges)} failed; the first: {failure}")
    return summarize(exchanges, elapsed, objectives)


def document(summary: Summary) -> dict[str, Any]:
    """The figures under the names of vLLM's result files."""
    rates = {
        "request_throughput": summary.request_throughput,
        "request_goodput": summary.goodput,
        "output_throughput": summary.output_throughput,
        "total_token_throughput": summary.total_throughput,
        "cached_share": summary.cached_share,
    }
    plain = {k: v for k, v in asdict(summary).items() if not isinstance(v, dict)}
    spreads = {
        f"{name}_{figure}_ms": value
        for figure in ("ttft", "tpot", "itl", "e2el")
        for name, value in asdict(getattr(summary, figure)).items()
    }
    return {**plain, **rates, **spreads}


def _fields(text: str, ignore_eos: bool) -> dict[str, object]:
    from ...errors import ConfigError

    try:
        fields = json_module.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError("must be a JSON object", field="extra-body", value=text)
    return {**({"ignore_eos": True} if ignore_eos else {}), **fields}


def _target(url: str, model: str | None, key: str | None, extra: dict[str, object]) -> Target:
    from ...errors import ConfigError

    try:
        from ...traffic.client import Target
        from ...traffic.run import served_model
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"needs {error.name}, which `pip install 'pelton[bench]'` brings", field="pelton bench serve"
        ) from None
    base = url.rstrip("/").removesuffix("/v1")
    Target(base, "", key)  # a wrong address is told before anything is asked of it
    return Target(base, model or asyncio.run(served_model(base, key)), key, extra)


def _rates(text: str) -> list[float]:
    from ...errors import ConfigError

    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise ConfigError("must be rates above 0 with commas between", field="sweep", value=text)
    return rates


def _refuse_warm(summary: Summary) -> None:
    """These workloads share nothing, so a cache can only know them from an earlier run."""
    from ...errors import ConfigError

    if summary.cached_share > _WARM_SHARE:
        raise ConfigError(
            f"{summary.cached_share:.0%} of the prompt tokens came from the server's cache: the figures are"
            " of a warm cache; restart the server, change --seed, or pass --warm",
            field="pelton bench serve",
        )


def _say_summary(summary: Summary, objectives: Objectives) -> None:
    asked = [value for value in asdict(objectives).values() if value is not None]
    cached = (
        "not told"
        if summary.cached_tokens is None
        else f"{summary.cached_tokens} ({summary.cached_share:.1%})"
    )
    facts = {
        "Successful requests": str(summary.completed),
        "Failed requests": str(summary.failed),
        "Peak concurrent requests": str(summary.peak_concurrent),
        "Benchmark duration (s)": f"{summary.duration:.2f}",
        "Total input tokens": str(summary.input_tokens),
        "  of them from the server's cache": cached,
        "Total generated tokens": str(summary.output_tokens),
        "Request throughput (req/s)": f"{summary.request_throughput:.2f}",
        "Output token throughput (tok/s)": f"{summary.output_throughput:.2f}",
        "Total token throughput (tok/s)": f"{summary.total_throughput:.2f}",
    }
    if asked:
        facts["Request goodput (req/s)"] = f"{summary.goodput:.2f}"
    width = max(map(len, facts))
    for name, value in facts.items():
        say(f"{name:<{width}}  {value}")
    say("")
    names = {"TTFT": summary.ttft, "TPOT": summary.tpot, "ITL": summary.itl, "E2EL": summary.e2el}
    say_table(
        ("ms", "mean", "median", "p90", "p99"),
        [_spread_row(name, spread) for name, spread in names.items()],
        right=("mean", "median", "p90", "p99"),
    )


def _spread_row(name: str, spread: Spread) -> tuple[str, ...]:
    return (name, *(f"{value:.2f}" for value in (spread.mean, spread.p50, spread.p90, spread.p99)))


def _say_rate(rate: float, summary: Summary, objectives: Objectives) -> None:
    held = "SLOs hold" if objectives.held_by(summary) else "SLOs BROKEN"
    say(
        f"{rate:g} req/s: goodput {summary.goodput:.2f} req/s, {summary.output_throughput:.0f} tok/s,"
        f" TTFT p90 {summary.ttft.p90:.0f} ms, TPOT p90 {summary.tpot.p90:.1f} ms, {held}"
    )
