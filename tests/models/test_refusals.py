"""What pelton does not implement is refused by file, key and value; it never loads as another model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter

from pelton.errors import ConfigError, ModelFileError, UnsupportedModelError
from pelton.models import ARCHITECTURES
from pelton.models.load import load_model

from .cases import F32, Goldens, write_folder
from .gguf_files import write_gguf

REMOVED = object()
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
_LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
    **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
}
_LONG = {
    **{"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16},
    **{"short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
}

# case, key, value put there, key named in the error (None: the same), value named (None: the same)
UNSUPPORTED: list[tuple[str, str, Any, str | None, Any]] = [
    ("llama", "model_type", "llama4", None, None),
    ("llama", "model_type", "gemma3", None, None),
    ("llama", "hidden_act", "relu2", None, None),
    ("llama", "hidden_act", "quick_gelu", None, None),
    ("gemma2", "hidden_activation", "gelu_fast", None, None),
    ("gpt2", "activation_function", "mish", None, None),
    ("llama", "quantization_config", {"quant_method": "awq", "bits": 4}, None, None),
    ("llama", "rope_parameters", {"rope_type": "mrope"}, "rope_parameters.rope_type", "mrope"),
    ("llama", "rope_parameters", {"type": "ntk"}, "rope_parameters.type", "ntk"),
    (
        "llama",
        "rope_parameters",
        {"rope_type": "linear", "factor": 2.0, "beta": 1},
        "rope_parameters.beta",
        1,
    ),
    ("llama", "rope_parameters", {"rope_type": "default", "factor": 8.0}, "rope_parameters.factor", 8.0),
    ("llama", "rope_parameters", {**_YARN, "finetuned": True}, "rope_parameters.finetuned", True),
    ("gemma3", "rope_parameters", {"rope_type": "default", "rope_theta": 1e4}, None, None),
    ("llama", "rope_interleaved", True, None, None),
    ("llama", "is_encoder_decoder", True, None, None),
    ("llama", "add_cross_attention", True, None, None),
    ("llama", "use_bidirectional_attention", True, None, None),
    ("gemma3", "use_bidirectional_attention", True, None, None),
    ("llama", "sliding_window", 8, None, None),
    ("llama", "attn_logit_softcapping", 30.0, None, None),
    ("llama", "residual_multiplier", 0.5, None, None),
    ("llama", "num_experts", 4, None, None),
    ("llama", "some_new_option", 1, None, None),
    ("llama", "layer_types", ["full_attention", "full_attention"], None, None),
    ("qwen2", "layer_types", ["full_attention", "linear_attention"], None, "linear_attention"),
    ("qwen3", "layer_types", ["chunked_attention", "full_attention"], None, "chunked_attention"),
    ("qwen2", "mlp_bias", True, None, None),
    ("qwen3_moe", "mlp_only_layers", [0], None, None),
    ("qwen3_moe", "decoder_sparse_step", 2, None, None),
    ("qwen3_moe", "shared_expert_intermediate_size", 64, None, None),
    ("gpt2", "scale_attn_weights", False, None, None),
    ("gpt2", "scale_attn_by_inverse_layer_idx", True, None, None),
    ("gpt_neox", "rope_theta", 5000.0, None, None),
    ("mixtral", "num_shared_experts", 1, None, None),
    ("olmo2", "clip_qkv", 8.0, None, None),
    ("stablelm", "norm_eps", 1e-5, None, None),
    ("granite", "position_embedding_type", "nope", None, None),
]
BROKEN: list[tuple[str, str, Any, str | None, Any]] = [
    ("llama", "hidden_size", 0, None, None),
    ("llama", "hidden_size", 1 << 40, None, None),
    ("llama", "hidden_size", "64", None, None),
    ("llama", "hidden_size", REMOVED, None, REMOVED),
    ("llama", "num_hidden_layers", 10**9, None, None),
    ("llama", "num_hidden_layers", True, None, None),
    ("llama", "num_attention_heads", -4, None, None),
    ("llama", "num_key_value_heads", 3, "key heads", 3),
    ("llama", "head_dim", 15, None, None),
    ("llama", "vocab_size", 1 << 30, None, None),
    ("llama", "max_position_embeddings", 0, None, None),
    ("llama", "rms_norm_eps", 0.0, "norm epsilon", 0.0),
    ("llama", "rms_norm_eps", -1.0, "norm epsilon", -1.0),
    ("llama", "tie_word_embeddings", "yes", None, None),
    ("llama", "rope_parameters", {"rope_type": "linear"}, "rope_parameters.factor", REMOVED),
    ("llama", "rope_parameters", {"rope_type": "linear", "factor": -1.0}, "rope_parameters.factor", -1.0),
    ("llama", "rope_parameters", {"rope_theta": 0.0}, "rope_theta", 0.0),
    ("llama", "rope_parameters", {"partial_rotary_factor": 1.5}, "partial_rotary_factor", 1.5),
    ("llama", "rope_parameters", {**_YARN, "beta_fast": 0}, "rope_parameters.beta_fast", 0),
    (
        "llama",
        "rope_parameters",
        {**_LLAMA3, "high_freq_factor": 1.0},
        "rope_parameters.high_freq_factor",
        1.0,
    ),
    (
        "phi3",
        "rope_parameters",
        {**_LONG, "long_factor": [1.0] * 7},
        "rope_parameters.long_factor",
        [1.0] * 7,
    ),
    (
        "phi3",
        "rope_parameters",
        {**_LONG, "short_factor": [0.0] * 8},
        "rope_parameters.short_factor",
        [0.0] * 8,
    ),
    ("mistral", "sliding_window", -8, None, None),
    ("qwen2_window", "layer_types", ["sliding_attention"], None, None),
    ("mixtral", "num_experts_per_tok", 9, "experts per token", 9),
    ("gemma2", "final_logit_softcapping", -1.0, "logit_cap", -1.0),
    ("granite", "logits_scaling", 0.0, None, None),
]


@pytest.fixture(scope="module")
def goldens() -> Goldens:
    return Goldens()


def _refused(
    kind: type[ModelFileError], goldens: Goldens, folder: Path, row: tuple[str, str, Any, str | None, Any]
) -> None:
    case, key, value, field, named = row
    config = goldens.config(case)
    config.pop(key, None)
    if value is not REMOVED:
        config[key] = value
    write_folder(folder, config, goldens.tensors(case))
    with pytest.raises(kind) as caught:
        load_model(folder)
    error = caught.value
    assert type(error) is kind
    assert error.subject is not None
    assert error.subject.startswith(str(folder))
    assert error.field == (field or key)
    if named is not REMOVED:
        assert error.value == (value if named is None else named)
        assert str(error.value)[:40] in str(error)


@pytest.mark.parametrize("row", UNSUPPORTED, ids=lambda row: f"{row[0]}-{row[1]}")
def test_unsupported_settings(
    row: tuple[str, str, Any, str | None, Any], goldens: Goldens, tmp_path: Path
) -> None:
    _refused(UnsupportedModelError, goldens, tmp_path, row)


@pytest.mark.parametrize("row", BROKEN, ids=lambda row: f"{row[0]}-{row[1]}")
def test_broken_settings(
    row: tuple[str, str, Any, str | None, Any], goldens: Goldens, tmp_path: Path
) -> None:
    _refused(ModelFileError, goldens, tmp_path, row)


def test_unknown_architecture_lists_what_is_supported(goldens: Goldens, tmp_path: Path) -> None:
    write_folder(tmp_path, {**goldens.config("llama"), "model_type": "mamba"}, goldens.tensors("llama"))
    with pytest.raises(UnsupportedModelError, match="model_type = 'mamba'") as caught:
        load_model(tmp_path)
    for architecture in ARCHITECTURES:
        assert all(name in str(caught.value) for name in architecture.config_names)


_Q = "model.layers.1.self_attn.q_proj"
TENSORS: dict[str, tuple[str, Callable[[dict[str, F32]], object], str]] = {
    "missing": ("llama", lambda t: t.pop(f"{_Q}.weight"), f"{_Q}.weight"),
    "missing bias": ("qwen2", lambda t: t.pop(f"{_Q}.bias"), f"{_Q}.bias"),
    "missing head": ("llama", lambda t: t.pop("lm_head.weight"), "lm_head.weight"),
    "extra bias": ("llama", lambda t: t.update({f"{_Q}.bias": t["model.norm.weight"]}), f"{_Q}.bias"),
    "extra layer": (
        "llama",
        lambda t: t.update({"model.layers.2.mlp.up_proj.weight": t[f"{_Q}.weight"]}),
        "model.layers.2.mlp.up_proj.weight",
    ),
    "extra head": ("llama", lambda t: t.update({"score.weight": t["lm_head.weight"]}), "score.weight"),
    "shape": ("llama", lambda t: t.update({f"{_Q}.weight": t[f"{_Q}.weight"][:60]}), f"{_Q}.weight"),
    "fused shape": (
        "phi3",
        lambda t: t.update({"model.layers.0.self_attn.qkv_proj.weight": np.zeros((64, 64), np.float32)}),
        "model.layers.0.self_attn.qkv_proj.weight",
    ),
    "expert": (
        "mixtral",
        lambda t: t.pop("model.layers.0.block_sparse_moe.experts.3.w2.weight"),
        "model.layers.0.block_sparse_moe.experts.3.w2.weight",
    ),
    "head norm": (
        "stablelm_parallel",
        lambda t: t.update({"model.layers.0.self_attn.q_layernorm.norms.4.weight": np.ones(16, np.float32)}),
        "model.layers.0.self_attn.q_layernorm.norms.4.weight",
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit(name: str, goldens: Goldens, tmp_path: Path) -> None:
    case, change, tensor = TENSORS[name]
    tensors = goldens.tensors(case)
    change(tensors)
    write_folder(tmp_path, goldens.config(case), {key: np.ascontiguousarray(t) for key, t in tensors.items()})
    with pytest.raises(ModelFileError) as caught:
        load_model(tmp_path)
    assert tensor in str(caught.value)
    assert caught.value.subject == str(tmp_path)


def test_harmless_leftovers_load(goldens: Goldens, tmp_path: Path) -> None:
    """Tables that old checkpoints carry, a saved copy of a tied head, and nulls are no reason to refuse."""
    tensors = goldens.tensors("llama_biases")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(12, np.float32)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    config = {**goldens.config("llama_biases"), "unknown_but_null": None, "quantization_config": None}
    assert load_model(write_folder(tmp_path, config, tensors)).shape.num_layers == 2


GGUF_KEYS: dict[str, tuple[str, Callable[[GGUFWriter], None], str, object]] = {
    "unknown": ("llama", lambda w: w.add_uint32("llama.new_option", 3), "llama.new_option", 3),
    "mla": ("llama", lambda w: w.add_kv_lora_rank(8), "llama.attention.kv_lora_rank", 8),
    "clamp": ("llama", lambda w: w.add_clamp_kqv(8.0), "llama.attention.clamp_kqv", 8.0),
    "bidirectional": ("llama", lambda w: w.add_causal_attention(False), "llama.attention.causal", False),
    "scaling": (
        "llama",
        lambda w: w.add_string("llama.rope.scaling.type", "ntk"),
        "llama.rope.scaling.type",
        "ntk",
    ),
    "yarn": (
        "rope_yarn",
        lambda w: w.add_float32("llama.rope.scaling.yarn_log_multiplier", 0.5),
        "llama.rope.scaling.yarn_log_multiplier",
        0.5,
    ),
    "gate": ("mixtral", lambda w: w.add_uint32("llama.expert_gating_func", 2), "llama.expert_gating_func", 2),
    "window": ("qwen2", lambda w: w.add_sliding_window(8), "qwen2.attention.sliding_window", 8),
    "cap": (
        "qwen3",
        lambda w: w.add_final_logit_softcapping(30.0),
        "qwen3.final_logit_softcapping",
        30.0,
    ),
}


@pytest.mark.parametrize("name", GGUF_KEYS)
def test_unsupported_gguf_keys(name: str, goldens: Goldens, tmp_path: Path) -> None:
    case, add, field, value = GGUF_KEYS[name]
    path = write_gguf(tmp_path / "model.gguf", goldens.config(case), goldens.tensors(case), add)
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(path)
    assert (caught.value.subject, caught.value.field, caught.value.value) == (str(path), field, value)


def test_gguf_extra_tensor_and_wrong_vocabulary(goldens: Goldens, tmp_path: Path) -> None:
    def extra(writer: GGUFWriter) -> None:
        writer.add_tensor("blk.0.attn_sinks.weight", np.ones(4, np.float32))

    path = write_gguf(tmp_path / "extra.gguf", goldens.config("llama"), goldens.tensors("llama"), extra)
    with pytest.raises(ModelFileError, match="attn_sinks"):
        load_model(path)
    config = {**goldens.config("llama"), "vocab_size": 200}
    path = write_gguf(tmp_path / "vocabulary.gguf", config, goldens.tensors("llama"))
    with pytest.raises(ModelFileError, match=r"llama\.vocab_size = 200"):
        load_model(path)


@pytest.mark.parametrize("length", [0, -1, 65])
def test_context_beyond_the_trained_one(length: int, goldens: Goldens, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, goldens.config("rope_dynamic"), goldens.tensors("rope_dynamic"))
    with pytest.raises(ConfigError, match="context_length"):
        load_model(folder, context_length=length)
    assert load_model(folder, context_length=64).context_length == 64
