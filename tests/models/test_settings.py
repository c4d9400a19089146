"""Older ways of stating the same settings give the same plan; number formats are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pelton.models.load import load_model
from pelton.plan import Plan
from pelton.plan.ops import Attend, Rope

from .cases import Goldens, write_folder


@pytest.fixture(scope="module")
def goldens() -> Goldens:
    return Goldens()


def _plan(goldens: Goldens, folder: Path, case: str, config: dict[str, Any]) -> Plan:
    return load_model(write_folder(folder, config, goldens.tensors(case))).plan


def _same(goldens: Goldens, folder: Path, case: str, removed: tuple[str, ...], added: dict[str, Any]) -> None:
    config = goldens.config(case)
    new = _plan(goldens, folder, case, config)
    old = {key: value for key, value in config.items() if key not in removed}
    assert _plan(goldens, folder, case, {**old, **added}).steps == new.steps


@pytest.mark.parametrize(
    "case", ["llama", "rope_linear", "rope_dynamic", "rope_yarn", "rope_yarn_options", "rope_llama3"]
)
def test_rope_scaling_of_transformers_4(case: str, goldens: Goldens, tmp_path: Path) -> None:
    rope = goldens.config(case)["rope_parameters"]
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "rope_type")}
    kind = rope["rope_type"]
    added = {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": None if kind == "default" else {**scaling, "type": kind},
    }
    _same(goldens, tmp_path, case, ("rope_parameters",), added)


def test_longrope_called_su(goldens: Goldens, tmp_path: Path) -> None:
    rope = {**goldens.config("phi3_long")["rope_parameters"], "type": "su"}
    added = {"rope_theta": rope.pop("rope_theta"), "partial_rotary_factor": rope.pop("partial_rotary_factor")}
    del rope["rope_type"]
    _same(goldens, tmp_path, "phi3_long", ("rope_parameters",), {**added, "rope_scaling": rope})


def test_gemma3_of_transformers_4(goldens: Goldens, tmp_path: Path) -> None:
    added = {
        **{"rope_theta": 900.0, "rope_local_base_freq": 200.0, "sliding_window_pattern": 3},
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    _same(goldens, tmp_path, "gemma3", ("rope_parameters", "layer_types", "_sliding_window_pattern"), added)


def test_neox_names(goldens: Goldens, tmp_path: Path) -> None:
    added = {"rotary_pct": 0.5, "rotary_emb_base": 10000, "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    _same(goldens, tmp_path, "gpt_neox", ("rope_parameters",), added)


@pytest.mark.parametrize("case", ["qwen2_window", "gemma2"])
def test_windows_without_layer_types(case: str, goldens: Goldens, tmp_path: Path) -> None:
    _same(goldens, tmp_path, case, ("layer_types",), {})


def test_first_gpt2_releases_have_no_prefix(goldens: Goldens, tmp_path: Path) -> None:
    tensors = {name.removeprefix("transformer."): t for name, t in goldens.tensors("gpt2").items()}
    tensors["h.0.attn.bias"] = np.ones((1, 1, 64, 64), np.float32)
    model = load_model(write_folder(tmp_path / "old", goldens.config("gpt2"), tensors))
    assert (
        model.plan
        == load_model(write_folder(tmp_path / "new", goldens.config("gpt2"), goldens.tensors("gpt2"))).plan
    )


def test_yarn_stretches_the_context(goldens: Goldens, tmp_path: Path) -> None:
    config = goldens.config("rope_yarn")
    config["rope_parameters"].update(original_max_position_embeddings=64)
    model = load_model(write_folder(tmp_path, config, goldens.tensors("rope_yarn")))
    assert model.shape.context_length == 256


def test_longrope_follows_the_context_length(goldens: Goldens, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, goldens.config("phi3_long"), goldens.tensors("phi3_long"))
    plans = [load_model(folder, context_length=length).plan for length in (None, 64, 17, 16, 8)]
    ropes = [next(step.op for step in plan.steps if isinstance(step.op, Rope)) for plan in plans]
    assert ropes[0] == ropes[1] == ropes[2] != ropes[3] == ropes[4]


def test_local_layers_of_gemma3(goldens: Goldens, tmp_path: Path) -> None:
    plan = _plan(goldens, tmp_path, "gemma3", goldens.config("gemma3"))
    attends = [step.op for step in plan.steps if isinstance(step.op, Attend)]
    ropes = [step.op for step in plan.steps if isinstance(step.op, Rope)]
    assert [attend.window for attend in attends] == [8, 8, 0]
    assert ropes[0] == ropes[2] != ropes[4]


@pytest.mark.parametrize("case", ["gpt2", "phi3", "gpt_neox", "mixtral"])
def test_half_precision_stays_half(case: str, goldens: Goldens, tmp_path: Path) -> None:
    halves: dict[str, Any] = {name: t.astype(np.float16) for name, t in goldens.tensors(case).items()}
    model = load_model(write_folder(tmp_path, goldens.config(case), halves))
    assert {tensor.format.name for tensor in model.weights.values()} == {"F16"}


def test_gemma_norms_are_f32_so_that_adding_one_is_exact(goldens: Goldens, tmp_path: Path) -> None:
    halves: dict[str, Any] = {name: t.astype(np.float16) for name, t in goldens.tensors("gemma2").items()}
    weights = load_model(write_folder(tmp_path, goldens.config("gemma2"), halves)).weights
    assert weights["output_norm"].format.name == "F32"
    expected = halves["model.norm.weight"].astype(np.float32) + np.float32(1)
    assert np.array_equal(weights["output_norm"].load().dequantize(), expected)


def test_fused_matrices_are_split_without_copying(goldens: Goldens, tmp_path: Path) -> None:
    weights = load_model(write_folder(tmp_path, goldens.config("phi3"), goldens.tensors("phi3"))).weights
    q, k = (weights[f"blk.0.attn_{name}"].load().data for name in "qk")
    assert q.__array_interface__["data"][0] + q.size == k.__array_interface__["data"][0]
