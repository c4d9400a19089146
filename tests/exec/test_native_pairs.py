"""Which weights are held in pairs of blocks: those that products alone read, whole groups of them."""

from __future__ import annotations

import pytest

from pelton.exec.native_pairs import paired_weights
from pelton.models.load import load_model

from ..tiny import tiny_plan, tiny_weights

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@pytest.mark.parametrize("number_format", ["Q4_0", "Q4_1"])
def test_all_products_but_the_logits_of_a_4_bit_model(number_format: str) -> None:
    weights = tiny_weights(weight_format=number_format)
    paired = paired_weights(tiny_plan(weights), weights)
    assert paired == {
        f"blk.{layer}.{name}": 2 if name == "ffn_down" else 1 for layer in (0, 1) for name in MATRICES
    }


def test_segments_are_as_few_as_can_be_but_where_a_gate_rounds() -> None:
    model = load_model("synthetic:llama-135m?format=Q4_1&layers=1&context=64")
    paired = paired_weights(model.plan, model.weights)
    assert paired == {f"blk.0.{name}": 2 if name == "ffn_down" else 9 for name in MATRICES}


def test_products_of_one_input_go_together() -> None:
    weights = tiny_weights(weight_format="Q4_1")
    other = tiny_weights(weight_format="Q8_0")
    weights["blk.0.attn_v"] = other["blk.0.attn_v"]
    weights["blk.1.ffn_up"] = other["blk.1.ffn_up"]
    paired = paired_weights(tiny_plan(weights), weights)
    plain = {f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v")} | {"blk.1.ffn_gate", "blk.1.ffn_up"}
    assert paired.keys() == {f"blk.{layer}.{name}" for layer in (0, 1) for name in MATRICES} - plain


def test_a_weight_of_two_names_has_one_form() -> None:
    """Where a gate rounds and where it does not segments differ; a table of rows stays as it is."""
    weights = tiny_weights(weight_format="Q4_1")
    weights["blk.0.attn_output"] = weights["blk.1.attn_output"]
    assert paired_weights(tiny_plan(weights), weights)["blk.0.attn_output"] == 1
    model = load_model("synthetic:llama-135m?format=Q4_1&layers=1&context=64")
    square = model.weights["blk.0.attn_output"]
    shared = {**model.weights, "blk.0.attn_q": square}
    assert paired_weights(model.plan, shared)["blk.0.attn_q"] == 9
    table = {**model.weights, "token_embd": square}
    assert "blk.0.attn_output" not in paired_weights(model.plan, table)
    chain = {**shared, "blk.0.ffn_gate": model.weights["blk.0.ffn_down"]}  # of other segments than its twin
    kept = {"attn_q", "attn_k", "attn_v", "attn_output"}
    assert paired_weights(model.plan, chain).keys() == {f"blk.0.{name}" for name in kept}
    chain["blk.0.attn_v"] = chain["blk.0.ffn_up"]  # whose group is plain, so q is, so its twin is
    assert not paired_weights(model.plan, chain)


@pytest.mark.parametrize("number_format", ["F32", "IQ4_NL", "Q8_0"])
def test_other_formats_have_no_pairs(number_format: str) -> None:
    weights = tiny_weights(weight_format=number_format)
    assert not paired_weights(tiny_plan(weights), weights)
