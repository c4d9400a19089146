"""inspect tells what the file holds and what running it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pelton.cost.machine import Machine, measure, remember

from .calling import call, call_json, environment


def test_the_real_model(real_model_path: Path, tmp_path: Path) -> None:
    document = call_json("inspect", str(real_model_path), env=environment(tmp_path))
    assert document["shape"]["architecture"] == "llama"
    assert document["shape"]["parameters"] == 134_515_008
    formats = {share["format"]: share for share in document["formats"]}
    assert set(formats) == {"Q4_1", "Q8_0", "F32"}
    assert sum(share["parameters"] for share in formats.values()) == 134_515_008
    assert sum(share["bytes"] for share in formats.values()) < real_model_path.stat().st_size
    half = 2 * 2 * 30 * 3 * 64
    assert document["kv_bytes_per_token"] == {
        "int8": half * 68 // 128,
        "bfloat16": half,
        "float16": half,
        "float32": 2 * half,
    }
    assert document["decode"]["tokens_per_second"] is None
    assert "plan" not in document


def test_the_plan_is_one_line_a_step(tmp_path: Path) -> None:
    env = environment(tmp_path)
    lines = call("inspect", "synthetic:llama-1b?layers=2", "--plan", env=env).stdout.splitlines()
    document = call_json("inspect", "synthetic:llama-1b?layers=2", "--plan", env=env)
    assert document["plan"] == lines
    assert sum(line.startswith("layer ") for line in lines) == 2
    assert len([line for line in lines if " = " in line]) == document["steps"]


@pytest.mark.parametrize("name", ["llama-135m", "llama-1b", "qwen3-0.6b"])
def test_shares_add_up_for_synthetic_models(name: str, tmp_path: Path) -> None:
    document = call_json("inspect", f"synthetic:{name}?format=Q8_0&layers=2", env=environment(tmp_path))
    assert sum(share["parameters"] for share in document["formats"]) == document["shape"]["parameters"]


def test_a_measured_machine_gives_a_ceiling(tmp_path: Path) -> None:
    machine: Machine = measure(1)
    remember(tmp_path / "machines", machine)
    env = environment(tmp_path)
    text = call("inspect", "synthetic:llama-1b?layers=1", "--threads", "1", env=env).stdout
    decode = call_json("inspect", "synthetic:llama-1b?layers=1", "--threads", "1", env=env)["decode"]
    memory_bound = machine.read_bandwidth(decode["bytes"]) / decode["bytes"]
    assert 0 < decode["tokens_per_second"] <= memory_bound * 1.000001
    assert "tokens/s on this machine" in text


def test_a_cut_file_is_one_line(real_model_path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with real_model_path.open("rb") as file:
        cut.write_bytes(file.read(1 << 20))
    result = call("inspect", str(cut), env=environment(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(cut) in result.stderr
