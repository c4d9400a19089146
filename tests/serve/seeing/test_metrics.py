"""Every figure under both names; the dashboard shows none that is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pelton.config import SamplingParams
from pelton.outputs import StreamOutput
from pelton.serve.seeing.meter import RequestMeter
from pelton.serve.seeing.metrics import Metrics
from pelton.serve.seeing.recent import SECONDS, Recent
from pelton.serve.seeing.view import EngineLoad
from pelton.stats import ROW_BUCKETS, EngineStats, StepRows

from ..serving import NAME, PATIENCE, Served, serving

DEPLOY = Path(__file__).parents[3] / "deploy"
VLLM = [
    "e2e_request_latency_seconds_bucket", "generation_tokens_total", "inter_token_latency_seconds_bucket",
    "iteration_tokens_total_bucket", "kv_cache_usage_perc", "num_preemptions_total", "num_requests_running",
    "num_requests_waiting", "prefix_cache_hits_total", "prefix_cache_queries_total",
    "prompt_tokens_cached_total", "prompt_tokens_total", "request_decode_time_seconds_bucket",
    "request_generation_tokens_bucket", "request_inference_time_seconds_bucket",
    "request_params_max_tokens_bucket", "request_params_n_bucket", "request_prefill_time_seconds_bucket",
    "request_prompt_tokens_bucket", "request_queue_time_seconds_bucket", "request_success_total",
    "request_time_per_output_token_seconds_bucket", "spec_decode_num_accepted_tokens_total",
    "spec_decode_num_draft_tokens_total", "spec_decode_num_drafts_total",
    "time_to_first_token_seconds_bucket",
]  # fmt: skip
"""Names of vLLM's that dashboards read, as they appear in the exposition."""


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path) as served:
        body = {"prompt": "a b c d", "max_tokens": 8, "ignore_eos": True, "n": 2}
        assert served.http.post("/v1/completions", json=body).status_code == 200
        assert served.http.post("/v1/completions", json={**body, "stream": True}).status_code == 200
        served.free_blocks()
        yield served


def samples(served: Served) -> dict[str, float]:
    """Sums over all labels but the buckets', by name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(served.http.get("/metrics").text):
        for sample in family.samples:
            if sample.labels.get("le", "+Inf") == "+Inf":
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_every_name_of_vllms_is_there_and_equal_to_ours(served: Served) -> None:
    found = samples(served)
    for name in VLLM:
        assert found[f"vllm:{name}"] == found[f"pelton:{name}"], name


def test_the_figures_are_those_of_what_was_done(served: Served) -> None:
    found = samples(served)
    prompt = len(served.service.prompts.tokenizer.encode("a b c d"))
    for name, value in {
        "generation_tokens_total": 32,
        "prompt_tokens_total": 2 * prompt,
        "prefix_cache_queries_total": 2 * prompt,
        "request_success_total": 2,
        "request_queue_time_seconds_count": 2,
        "request_prefill_time_seconds_count": 2,
        "request_decode_time_seconds_count": 2,
        "request_inference_time_seconds_count": 2,
        "request_params_n_sum": 4,
        "request_params_max_tokens_sum": 16,
        "num_preemptions_total": 0,
        "engine_restarts_total": 0,
        "num_requests_running": 0,
    }.items():
        assert found[f"pelton:{name}"] == value, name
    cached = found["pelton:prefix_cache_hits_total"]
    assert found["pelton:prompt_tokens_cached_total"] == cached
    rows = 2 * prompt - cached + 2 * 2 * 7  # the last token of each text is never run
    assert found["pelton:iteration_tokens_total_sum"] == rows
    assert found["pelton:iteration_tokens_total_count"] >= 16
    first, whole = (
        found["pelton:time_to_first_token_seconds_sum"],
        found["pelton:e2e_request_latency_seconds_sum"],
    )
    assert 0 < found["pelton:request_queue_time_seconds_sum"] < first < whole
    parts = sum(found[f"pelton:request_{part}_time_seconds_sum"] for part in ("queue", "prefill"))
    assert parts == pytest.approx(first, abs=1e-3)


def test_speculation_is_counted_by_position() -> None:
    load = EngineLoad(1, 2, 10, 5, drafts=4, drafted=12, accepted=5, accepted_at=(3, 2))
    text = Metrics(NAME, lambda: load, lambda: 3).text().decode()
    name = f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{model_name="{NAME}",position="1"}} 2.0'
    assert name in text
    assert f'pelton:engine_restarts_total{{model_name="{NAME}"}} 3.0' in text


def test_a_piece_of_several_tokens_is_as_many_steps_of_time() -> None:
    metrics = Metrics(NAME, lambda: EngineLoad(0, 0, 1, 1), lambda: 0)
    meter = RequestMeter(metrics, 0.0, 3, SamplingParams(max_tokens=100))
    meter.take(StreamOutput(0, "a", (1,)))
    for _ in range(3):
        meter.take(StreamOutput(0, "abcd", (1, 2, 3, 4)))
    meter.end(completed=True)
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        found |= {sample.name: sample.value for sample in family.samples}
    between = found["pelton:inter_token_latency_seconds_sum"]
    assert between * 4 == pytest.approx(found["pelton:request_decode_time_seconds_sum"])


def test_rows_fall_into_the_bucket_whose_end_they_do_not_exceed() -> None:
    stats = EngineStats()
    for total in (1, 2, 3, 8192, 8193):
        stats.took(StepRows(total - 1, 1, 0))
    counts = dict(zip([*ROW_BUCKETS, None], stats.rows_of_steps, strict=True))
    assert {end: count for end, count in counts.items() if count} == {1: 1, 2: 1, 4: 1, 8192: 1, None: 1}


def test_stats_tell_the_moment(served: Served) -> None:
    long = {"prompt": [5] * 100, "max_tokens": 900, "ignore_eos": True, "stream": True, "n": 2}
    with served.http.stream("POST", "/v1/completions", json=long, timeout=PATIENCE) as reply:
        lines = reply.iter_lines()
        next(lines)
        busy = served.http.get("/stats").json()
        while len(busy["steps"]) < 2 or busy["steps"][-1]["prefill"]:
            busy = served.http.get("/stats").json()
    assert (busy["model"], busy["running"], busy["under_way"]) == (NAME, 2, 2)
    assert busy["steps"][-1] == {"prefill": 0, "decode": 2, "draft": 0}
    assert sum(busy["tokens_per_second"]) >= 0
    assert len(busy["tokens_per_second"]) == SECONDS
    assert 0 < busy["time_to_first_token"]["p50"] <= busy["time_to_first_token"]["p99"]
    kinds = kinds_of(busy)
    assert kinds["shared"] == 3  # 96 of 100 prompt tokens lie in blocks that both texts share
    assert kinds["private"] >= 2
    served.free_blocks()
    idle = served.http.get("/stats").json()
    assert (idle["running"], idle["under_way"]) == (0, 0)
    assert set(kinds_of(idle)) <= {"free", "cached"}


def test_the_disk_tier_is_seen(tiny_path: Path, tmp_path: Path) -> None:
    body = {"prompt": [9, *range(20, 250)], "max_tokens": 2, "seed": 1}  # 7 blocks are full
    with serving(tiny_path, kv_cache_dir=tmp_path) as first:
        assert first.http.post("/v1/completions", json=body).status_code == 200
        # What was written is noted with the next lookup.
        assert first.until(lambda: len(list(tmp_path.rglob("*.kv"))) >= 7)
        assert first.http.post("/v1/completions", json=body).status_code == 200
        assert first.until(lambda: samples(first)["pelton:prefix_disk_written_total"] >= 7)
    with serving(tiny_path, kv_cache_dir=tmp_path) as again:
        on_disk = samples(again)["pelton:prefix_disk_blocks"]
        assert on_disk >= 7
        usage = again.http.post("/v1/completions", json=body).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] >= 224
        again.free_blocks()
        found, stats = samples(again), again.http.get("/stats").json()["disk"]
    assert found["pelton:prefix_disk_loaded_total"] >= 7
    assert 0 < found["pelton:prefix_disk_bytes"] <= found["pelton:prefix_disk_budget_bytes"]
    for name, value in stats.items():
        shown = {"bytes_used": "bytes"}.get(name, name)
        total = "" if name in ("blocks", "bytes_used", "budget_bytes") else "_total"
        assert found[f"pelton:prefix_disk_{shown}{total}"] == value
    assert (stats["broken"], stats["failed"], stats["strange"]) == (0, 0, 0)


def test_without_a_folder_the_disk_tier_is_nothing(served: Served) -> None:
    assert served.http.get("/stats").json()["disk"] is None
    assert samples(served)["pelton:prefix_disk_loaded_total"] == 0


def kinds_of(stats: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind, count in stats["kv"]["runs"]:
        found[kind] = found.get(kind, 0) + count
    assert sum(found.values()) == stats["kv"]["blocks"]
    return found


def test_recent_seconds_and_quantiles() -> None:
    now = 100.5
    recent = Recent(lambda: now)
    assert recent.wait_quantiles((0.5,)) is None
    for at in (98.1, 98.9, 99.0, 100.4):
        recent.generated(at, 3)
    assert recent.tokens_per_second[-2:] == [6, 3]  # the second that is not over does not count
    for place in range(100):
        recent.first_token(100.0, place / 100)
    recent.first_token(30.0, 99.0)  # too long ago
    assert recent.wait_quantiles((0.01, 0.5, 0.99, 1.0)) == [0.0, 0.49, 0.98, 0.99]


def test_the_dashboard_shows_only_what_is_there(served: Served) -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    known = {sample for sample in samples(served) if sample.startswith("pelton:")}
    used = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            used |= set(re.findall(r"pelton:\w+", target["expr"]))
    assert used <= known | {f"{name}_bucket" for name in known}, used - known
    assert len(used) >= 20
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
