"""`pelton bench simulate` on a small trace with given step costs: no model is loaded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from pelton.cost.simulator_cost import StepCost
from pelton.settings import SCHEDULERS

from .calling import call, call_json, environment


def prepared(folder: Path) -> tuple[str, ...]:
    StepCost(0.002, 0.0003, 1e-8, 1e-5, block_bytes=1 << 16).save(folder / "costs.json")
    lines = [
        {"arrival": 0.01 * i, "prompt_tokens": 30 + i, "output_tokens": 5, "tenant": f"t{i % 2}"}
        for i in range(9)
    ]
    (folder / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return (
        "bench",
        "simulate",
        "--trace",
        str(folder / "trace.jsonl"),
        "--costs",
        str(folder / "costs.json"),
    )


def test_all_schedulers_side_by_side(tmp_path: Path) -> None:
    table = tmp_path / "figures.csv"
    arguments = (*prepared(tmp_path), "--scheduler", "all", "--csv", str(table))
    result = call(*arguments, env=environment(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert [name for name in SCHEDULERS if name not in result.stdout] == []
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["scheduler"] for row in rows] == list(SCHEDULERS)
    assert {row["finished"] for row in rows} == {"9"}


def test_json_and_scale(tmp_path: Path) -> None:
    arguments = (*prepared(tmp_path), "--scheduler", "fair,mlfq", "--scale", "10", "--json")
    document = call_json(*arguments, env=environment(tmp_path))
    assert [run["scheduler"] for run in document["runs"]] == ["fair", "mlfq"]
    assert document["calls"] == 9


def test_an_unknown_scheduler_is_named(tmp_path: Path) -> None:
    result = call(*prepared(tmp_path), "--scheduler", "fastest", env=environment(tmp_path))
    assert result.exit_code == 1
    assert "fastest" in result.stderr
