"""Synthetic references: every shape loads, options are checked, the same reference gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pelton.errors import ConfigError, ModelFileError
from pelton.models.build import build, parameter_count, weight_shapes
from pelton.models.load import load_model
from pelton.models.synthetic import SHAPES, parse_synthetic
from pelton.plan import PlanBuilder, verify

from .cases import CASES, Goldens, context_of, tokens_of
from .running import logits_of


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("llama-135m", 134.5),
        ("llama-1b", 1235.8),
        ("llama-3b", 3212.7),
        ("llama-7b", 6738.4),
        ("llama-8b", 8030.3),
    ],
)
def test_sizes_are_the_real_ones(name: str, millions: float) -> None:
    assert parameter_count(SHAPES[name]) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_has_a_plan(name: str) -> None:
    verify(build(PlanBuilder(weight_shapes(SHAPES[name])), SHAPES[name]))


def test_a_small_one_runs() -> None:
    reference = "synthetic:llama-135m?format=Q4_0&seed=3&context=256&layers=1"
    first, second = load_model(reference), load_model(reference, "synthetic")
    assert first.context_length == 256
    assert first.source is None
    assert first.weights["output"] is first.weights["token_embd"]
    assert first.weights["blk.0.attn_q"].format.name == "Q4_0"
    for name, weight in first.weights.items():
        assert np.array_equal(weight.load().data, second.weights[name].load().data)
    other = load_model(reference.replace("seed=3", "seed=4"))
    first_table, other_table = (model.weights["token_embd"].load().data for model in (first, other))
    assert not np.array_equal(first_table, other_table)
    logits = logits_of(first, np.array([1, 2, 3], np.int32))
    assert logits.shape == (3, 49_152)
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("synthetic:llama-2b", "llama-2b"),
        ("synthetic:", "llama-1b"),
        ("synthetic:llama-1b?format=Q4_7", "Q4_7"),
        ("synthetic:llama-1b?size=3", "size=3"),
        ("synthetic:llama-1b?seed=-1", "seed=-1"),
        ("synthetic:llama-1b?seed=99999999999", "99999999999"),
        ("synthetic:llama-1b?context=0", "context"),
        ("synthetic:llama-1b?layers=5000", "layers"),
        ("synthetic:llama-1b?seed=1&seed=2", "seed=2"),
        ("synthetic:llama-1b?seed=1&", "options"),
    ],
)
def test_bad_references(reference: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_synthetic(reference, lambda folder: SHAPES["llama-1b"])


def test_context_beyond_the_shape() -> None:
    with pytest.raises(ConfigError, match="context_length = 9000"):
        load_model("synthetic:llama-135m?layers=1&context=9000")


@pytest.mark.parametrize("case", CASES)
def test_any_architecture_from_a_config_alone(case: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(Goldens().config(case)))
    number_format = "F16" if "moe" in case or "mixtral" in case else "Q8_0"  # experts of 48 inputs
    reference = f"synthetic:{tmp_path}?format={number_format}&seed=2"
    model = load_model(reference, context_length=context_of(case))
    logits = logits_of(model, tokens_of(case)[:5])
    assert logits.shape == (5, model.shape.vocab_size)
    assert np.isfinite(logits).all()


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelFileError, match="no/such"):
        load_model("synthetic:no/such?format=F32")
