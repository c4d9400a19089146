"""Tiny models of every family with their special options on; shared by the tests and make_goldens.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

F32 = NDArray[np.float32]
GOLDENS = Path(__file__).with_name("goldens.npz")
TOKENS = np.random.default_rng(1).integers(3, 128, 24).astype(np.int32)
SHORT = 12  # tokens of the cases that stay inside the original context of their LongRoPE
STORED_ROWS = (0, 5, 10, 11, 17, 23)

_TINY = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_TINY_MHA = {key: value for key, value in _TINY.items() if key != "num_key_value_heads"}
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_GEMMA = {"num_hidden_layers": 3, "head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 32}
_CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5}
_MOE = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 32}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.7, 2.0, 2.2, 2.6, 3.0],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
    "original_max_position_embeddings": 16,
}


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {**_TINY, "rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **settings}}


# name -> (model_type, settings); what is not set is the transformers library's default
CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _TINY),
    "llama_biases": (
        "llama",
        {**_TINY, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 24},
    ),
    "mistral": ("mistral", {**_TINY, "sliding_window": 8, "head_dim": 32}),
    "mixtral": ("mixtral", {**_TINY, "num_local_experts": 5, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", _TINY),
    "qwen2_window": (
        "qwen2",
        {**_TINY, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {**_TINY, "head_dim": 32, "tie_word_embeddings": True}),
    "qwen3_moe": ("qwen3_moe", {**_TINY, **_MOE, "norm_topk_prob": True}),
    "qwen3_moe_raw": ("qwen3_moe", {**_TINY, **_MOE, "norm_topk_prob": False}),
    "gemma2": ("gemma2", {**_TINY, **_GEMMA, **_CAPS}),
    "gemma2_scalar": ("gemma2", {**_TINY, **_GEMMA, **_CAPS, "query_pre_attn_scalar": 20}),
    "gemma3": (
        "gemma3_text",
        {
            **_TINY,
            **_GEMMA,
            "sliding_window_pattern": 3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 900.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 200.0},
            },
        },
    ),
    "phi3": ("phi3", {**_TINY, "sliding_window": 8}),
    "phi3_short": ("phi3", {**_TINY, "rope_parameters": _LONG, "original_max_position_embeddings": 16}),
    "phi3_long": ("phi3", {**_TINY, "rope_parameters": _LONG, "original_max_position_embeddings": 16}),
    "gpt2": (
        "gpt2",
        {"vocab_size": 128, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 96},
    ),
    "gpt_neox": ("gpt_neox", {**_TINY_MHA, "rotary_pct": 0.5}),
    "gpt_neox_sequential": (
        "gpt_neox",
        {**_TINY_MHA, "use_parallel_residual": False, "attention_bias": False, "hidden_act": "relu"},
    ),
    "stablelm": ("stablelm", {**_TINY, "use_qkv_bias": True}),
    "stablelm_parallel": (
        "stablelm",
        {**_TINY, "qk_layernorm": True, "use_parallel_residual": True, "partial_rotary_factor": 0.5},
    ),
    "olmo2": ("olmo2", _TINY),
    "granite": (
        "granite",
        {
            **_TINY,
            "embedding_multiplier": 6.0,
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.3,
            "logits_scaling": 2.5,
            "tie_word_embeddings": True,
        },
    ),
    "rope_linear": ("llama", _rope("linear", factor=4.0)),
    "rope_dynamic": ("llama", _rope("dynamic", factor=4.0)),
    "rope_yarn": ("llama", _rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "rope_yarn_options": (
        "llama",
        _rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=16,
            beta_fast=4.0,
            beta_slow=0.5,
            mscale=0.9,
            mscale_all_dim=0.5,
            truncate=False,
        ),
    ),
    "rope_llama3": (
        "llama",
        _rope(
            "llama3",
            factor=4.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
    ),
}


def settings_of(case: str) -> tuple[str, dict[str, Any]]:
    """model_type and settings with small special token ids."""
    kind, settings = CASES[case]
    return kind, {**_SPECIAL, **settings}


def tokens_of(case: str) -> NDArray[np.int32]:
    return TOKENS[:SHORT] if case == "phi3_short" else TOKENS


def context_of(case: str) -> int | None:
    """The context length to load a case with: LongRoPE is chosen by it."""
    return 16 if case == "phi3_short" else None


def stored_rows(case: str) -> list[int]:
    return [row for row in STORED_ROWS if row < len(tokens_of(case))]


def tiny_weight(name: str, shape: tuple[int, ...]) -> F32:
    """The same numbers for the same name and shape, everywhere."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    normal = np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape)
    if len(shape) == 1:
        normal = 0.2 * normal + (0.0 if name.endswith("bias") else 0.6)
    else:
        normal *= 1.4 / np.sqrt(shape[-1])
    return normal.astype(np.float32)


class Goldens:
    """What make_goldens.py stored: config.json, names and shapes of the tensors, some rows of logits."""

    def __init__(self) -> None:
        with np.load(GOLDENS) as archive:
            self._logits = {name: archive[name] for name in archive.files if name != "meta"}
            self._meta: dict[str, Any] = json.loads(archive["meta"].tobytes())

    def config(self, case: str) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(json.dumps(self._meta[case]["config"]))
        return config

    def tensors(self, case: str) -> dict[str, F32]:
        shapes: dict[str, list[int]] = self._meta[case]["tensors"]
        return {name: tiny_weight(name, tuple(shape)) for name, shape in shapes.items()}

    def logits(self, case: str) -> F32:
        """float32 [stored rows, V] as transformers computes them."""
        return np.asarray(self._logits[case])


def write_folder(folder: Path, config: Mapping[str, Any], tensors: dict[str, F32]) -> Path:
    """A Hugging Face folder without any of Hugging Face's model code."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder
