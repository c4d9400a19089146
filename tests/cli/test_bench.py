"""Benchmarks report what they ran, on a model of few layers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pelton.cli.bench.latency import tests_of as parse_tests
from pelton.cli.bench.report import render
from pelton.cost.batches import BatchSpeed
from pelton.errors import ConfigError

from .calling import call, call_json, environment

MODEL = "synthetic:llama-135m?layers=1&context=512"


def test_latency_has_llama_benchs_columns_and_the_ceiling_first(tmp_path: Path) -> None:
    arguments = ("bench", "latency", "-m", MODEL, "-p", "32", "-n", "4", "-r", "2", "-t", "1")
    result = call(*arguments, env=environment(tmp_path))
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    (header,) = [index for index, line in enumerate(lines) if line.startswith("| model")]
    columns = [cell.strip() for cell in lines[header].strip("|").split("|")]
    assert columns[:7] == ["model", "size", "params", "backend", "threads", "test", "t/s"]
    assert [line.split("|")[6].strip() for line in lines[header + 2 : header + 4]] == ["pp32", "tg4"]
    assert any(line.startswith("ceiling of tg4") for line in lines[:header])
    assert [
        word for word in ("load to first token", "Python's share", "peak memory") if word not in result.stdout
    ] == []


def test_latency_json(tmp_path: Path) -> None:
    arguments = (
        "bench",
        "latency",
        "-m",
        MODEL,
        "-p",
        "16,32",
        "-n",
        "2",
        "-d",
        "0,64",
        "-r",
        "3",
        "-t",
        "1",
    )
    document = call_json(*arguments, env=environment(tmp_path))
    names = [row["test"] for row in document["tests"]]
    assert names == ["pp16", "pp32", "tg2", "pp16 @ d64", "pp32 @ d64", "tg2 @ d64"]
    for row in document["tests"]:
        assert len(row["samples_ts"]) == 3
        assert min(row["samples_ts"]) <= row["avg_ts"] <= max(row["samples_ts"])
        assert row["share"] == pytest.approx(row["avg_ts"] / row["ceiling_ts"])
    assert 0 < document["setup"]["python_share"] < 1
    assert document["setup"]["peak_memory_bytes"] > document["setup"]["model_bytes"]
    assert list((tmp_path / "machines").iterdir())


def test_every_prompt_and_length_at_every_depth() -> None:
    assert [str(test) for test in parse_tests("512,0", "128", "0,9")] == [
        "pp512",
        "tg128",
        "pp512 @ d9",
        "tg128 @ d9",
    ]
    with pytest.raises(ConfigError, match="nothing to measure"):
        parse_tests("0", "0", "0")


def test_a_depth_beyond_the_context_is_refused(tmp_path: Path) -> None:
    result = call("bench", "latency", "-m", MODEL, "-d", "4096", "-t", "1", env=environment(tmp_path))
    assert result.exit_code == 1
    assert "4608 positions" in result.stderr


def test_throughput_counts_what_it_ran(tmp_path: Path) -> None:
    lengths = ("--num-prompts", "5", "--input-len", "8", "--output-len", "6")
    document = call_json("bench", "throughput", "-m", MODEL, *lengths, "-t", "1", env=environment(tmp_path))
    assert (document["num_requests"], document["num_failed"]) == (5, 0)
    assert (document["output_num_tokens"], document["total_num_tokens"]) == (30, 70)
    rate = document["output_num_tokens"] / document["elapsed_time"]
    assert document["output_tokens_per_second"] == pytest.approx(rate)
    assert document["steps"] < 30, "requests ran together"


def test_throughput_of_prompts_from_a_file(tmp_path: Path, real_model_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("Hello there.\n\nWhat is two plus two?\nNever read\n")
    env = environment(tmp_path)
    arguments = (
        "bench",
        "throughput",
        "-m",
        str(real_model_path),
        "--prompts",
        str(path),
        "--output-len",
        "3",
    )
    result = call(*arguments, "--num-prompts", "2", env=env)
    assert result.exit_code == 0, result.stderr
    assert "Throughput: " in result.stdout
    assert result.stdout.startswith("ceiling: ")
    path.write_text("\n \n")
    assert "holds no prompt" in call(*arguments, env=env).stderr


def test_a_report_is_one_page_without_other_files(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = call(
        *("bench", "report", "-m", MODEL, "-d", "0", "-r", "1", "-t", "1", "-np", "2", "-o", str(page)),
        env=environment(tmp_path),
    )
    assert result.exit_code == 0, result.stderr
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 4
    for word in ("pp512", "tg64", "matrix products", "waiting for other threads"):
        assert word in text
    references = re.findall(r'(?:src|href)="(?!#)([^"]*)"', text)
    assert references == []


def test_names_in_a_report_are_text(tmp_path: Path) -> None:
    part = {"name": "<b>", "share": 0.5, "seconds": 1.0, "limit": None, "rate": None, "peak": None}
    document = {
        "pelton": "0",
        "setup": {
            **{"model": "<script>", "format": "F", "backend": "b", "threads": 1, "model_bytes": 1},
            **{"load_to_first_token_seconds": 1.0, "python_share": 0.1, "peak_memory_bytes": 1},
        },
        "machine": {"processor": "p", "bandwidth": [(1 << 20, 1e10)], "int8": 1.0, "bf16": 1.0, "f32": 1.0},
        "tests": [
            {
                "test": "pp1",
                "avg_ts": 1.0,
                "stddev_ts": 0.0,
                "ceiling_ts": 2.0,
                "share": 0.5,
                "limit": "memory",
            }
        ],
        "profiles": {"pp1": [part]},
    }
    page = render(document, [BatchSpeed(1, 8, 1.0, 2.0, "memory")], "2026-01-01")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<td><b>" not in page
