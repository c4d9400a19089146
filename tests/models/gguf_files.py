"""The tiny models as GGUF files: metadata and tensor order as llama.cpp's converter leaves them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType, get_tensor_name_map
from gguf.constants import MODEL_ARCH_NAMES

from .cases import F32

# case -> GGUF's architecture; what GGUF cannot say (other scales of attention, windows of Qwen) is left out
GGUF_CASES: Mapping[str, str] = {
    "llama": "llama",
    "llama_biases": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "phi3": "phi3",
    "phi3_short": "phi3",
    "phi3_long": "phi3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "stablelm": "stablelm",
    "stablelm_parallel": "stablelm",
    "olmo2": "olmo2",
    "granite": "granite",
    "rope_linear": "llama",
    "rope_yarn": "llama",
    "rope_llama3": "llama",
}
_ARCH_OF = {
    "gemma3_text": "gemma3",
    "gpt_neox": "gptneox",
    "qwen3_moe": "qwen3moe",
    "mixtral": "llama",
    "mistral": "llama",
}
Config = dict[str, Any]
Named = dict[str, F32]


def write_gguf(
    path: Path, config: Config, tensors: Named, extra: Callable[[GGUFWriter], None] | None = None
) -> Path:
    """Convert a tiny folder's contents; `extra` may add keys or tensors before the file is written."""
    kind: str = config["model_type"]
    arch = _ARCH_OF.get(kind, kind)
    writer = GGUFWriter(str(path), arch)
    _add_shape(writer, config)
    _add_rope(writer, config)
    _add_special(writer, arch, config)
    for name, tensor in gguf_tensors(arch, config, tensors).items():
        writer.add_tensor(name, np.ascontiguousarray(tensor))
    if extra is not None:
        extra(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _first(config: Config, *keys: str) -> Any:
    return next(config[key] for key in keys if config.get(key) is not None)


def _head_dim(config: Config) -> int:
    heads = _first(config, "num_attention_heads", "n_head")
    return int(config.get("head_dim") or _first(config, "hidden_size", "n_embd") // heads)


def _add_shape(writer: GGUFWriter, config: Config) -> None:
    heads = _first(config, "num_attention_heads", "n_head")
    writer.add_type("model")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(_first(config, "max_position_embeddings", "n_positions"))
    writer.add_embedding_length(_first(config, "hidden_size", "n_embd"))
    writer.add_block_count(_first(config, "num_hidden_layers", "n_layer"))
    writer.add_feed_forward_length(_first(config, "intermediate_size", "n_inner"))
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if "rms_norm_eps" in config:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        writer.add_layer_norm_eps(_first(config, "layer_norm_eps", "layer_norm_epsilon"))


def _rope_parameters(config: Config) -> Config | None:
    found: Config | None = config.get("rope_parameters")
    return found["full_attention"] if found and "full_attention" in found else found


def _add_rope(writer: GGUFWriter, config: Config) -> None:
    rope = _rope_parameters(config)
    if rope is None:
        return
    dim = int(_head_dim(config) * rope.get("partial_rotary_factor", 1.0))
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "longrope":
        original = rope["original_max_position_embeddings"]
        stretch = config["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretch) / math.log(original)))
        writer.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], np.float32))
        writer.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], np.float32))
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_factors(rope, dim))


def _llama3_factors(rope: Config, dim: int) -> F32:
    factors = []
    for pair in range(dim // 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (2 * pair / dim)
        turns = rope["original_max_position_embeddings"] / wave
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        if turns > high:
            factors.append(1.0)
        elif turns < low:
            factors.append(rope["factor"])
        else:
            smooth = (turns - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def _add_special(writer: GGUFWriter, arch: str, config: Config) -> None:
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    if arch == "gemma3":
        writer.add_sliding_window_pattern(config["_sliding_window_pattern"])
        writer.add_float32(
            "gemma3.rope.freq_base_swa", config["rope_parameters"]["sliding_attention"]["rope_theta"]
        )
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if arch == "granite":
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if "use_parallel_residual" in config:
        writer.add_parallel_residual(config["use_parallel_residual"])
    experts = config.get("num_local_experts") or config.get("num_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def gguf_tensors(arch: str, config: Config, tensors: Named) -> Named:
    """Names by the gguf package's own table; rows, stacks and offsets as the converter makes them."""
    heads = _first(config, "num_attention_heads", "n_head")
    kv_heads = config.get("num_key_value_heads", heads)
    tensors = _stacked(
        _stacked(tensors, r"(.*\.experts)\.(\d+)\.(w\d|\w+_proj)"), r"(.*_layernorm\.norms)\.(\d+)()"
    )
    kind = next(key for key, name in MODEL_ARCH_NAMES.items() if name == arch)
    names = get_tensor_name_map(MODEL_ARCH(kind), _first(config, "num_hidden_layers", "n_layer"))
    found: Named = {}
    for source, tensor in tensors.items():
        if arch in ("llama", "granite") and ".q_proj." in source:
            tensor = _neighbours(tensor, heads)
        elif arch in ("llama", "granite") and ".k_proj." in source:
            tensor = _neighbours(tensor, kv_heads)
        elif arch.startswith("gemma") and source.endswith("norm.weight"):
            tensor = tensor + 1
        elif arch == "gpt2" and re.search(r"c_(attn|proj|fc)\.weight$", source):
            tensor = tensor.T
        elif arch == "gptneox" and ".query_key_value." in source:
            by_head = tensor.reshape(heads, 3, -1, *tensor.shape[1:])
            tensor = by_head.swapaxes(0, 1).reshape(tensor.shape)
        target = names.get_name(source, try_suffixes=(".weight", ".bias"))
        assert target is not None, source
        found[target] = tensor
    return found


def _neighbours(tensor: F32, heads: int) -> F32:
    """Rows (i, i + half) of each head side by side."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return np.asarray(halves.swapaxes(1, 2).reshape(tensor.shape))


def _stacked(tensors: Named, pattern: str) -> Named:
    """Tensors numbered by the pattern's second group, as one tensor with a new first axis."""
    found: Named = {}
    groups: dict[str, dict[int, F32]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(pattern + r"\.weight", name)
        if match is None:
            found[name] = tensor
        else:
            stem = ".".join(part for part in (match[1], match[3]) if part).removesuffix(".norms")
            groups.setdefault(stem + ".weight", {})[int(match[2])] = tensor
    return {**found, **{name: np.stack([g[i] for i in range(len(g))]) for name, g in groups.items()}}
