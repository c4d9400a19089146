"""Gemma 2 and Gemma 3 (text): norms before and after each block, windows on most layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..plan.ops import Activation
from ..quant import Tensor
from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder, QKNorm
from .assemble import Part, add_one
from .checks import MOST, refuse, size
from .names import CONFIG_LAYER, config_parts, gguf_parts
from .read_config import layered_windows, read_decoder, trained_context
from .read_gguf import gguf_window, read_gguf_decoder, rope_from_gguf
from .read_rope import ContextUse, RopeKeys, rope_from_config

_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
# Models whose queries are scaled by hidden / heads, not by the head dimension: the 27B ones. GGUF
# has no key for it; llama.cpp, too, tells them by their number of layers.
_WIDE_SCALE_LAYERS = {"gemma2": 46, "gemma3": 62}


def _gemma(decoder: Decoder) -> Decoder:
    return replace(decoder, post_norm=True, embedding_scale=math.sqrt(decoder.hidden))


def _read(config: ConfigFile, wanted: int | None, name: str, pattern: int, rope: RopeKeys) -> Decoder:
    decoder = read_decoder(
        config,
        wanted,
        name,
        tied=True,
        head_dim=256,
        rope=rope,
        activation_key="hidden_activation",
        activation_default="gelu_pytorch_tanh",
    )
    config.get_str("hidden_act", None)  # older files carry it; hidden_activation is what counts
    bias = config.get_bool("attention_bias", False)
    windows = layered_windows(config, decoder.num_layers, lambda layer: bool((layer + 1) % pattern))
    return replace(
        _gemma(decoder),
        qkv_bias=bias,
        attn_output_bias=bias,
        windows=windows,
        attention_scale=size(config, "query_pre_attn_scalar", MOST["width"], 256) ** -0.5,
        attention_cap=config.get_float("attn_logit_softcapping", 0.0),
        logit_cap=config.get_float("final_logit_softcapping", 0.0),
    )


def read_gemma2_config(config: ConfigFile, wanted: int | None) -> Decoder:
    return _read(config, wanted, "gemma2", 2, RopeKeys())


def read_gemma3_config(config: ConfigFile, wanted: int | None) -> Decoder:
    saved = config.get_int("_sliding_window_pattern", 6)  # transformers 5 writes both
    pattern = size(config, "sliding_window_pattern", MOST["layers"], max(saved, 1))
    whole, local = _rope_keys(config)
    decoder = _read(config, wanted, "gemma3", pattern, whole)
    local_rope = rope_from_config(config, decoder.head_dim, trained_context(config, wanted), local)
    return replace(decoder, qk_norm=QKNorm.HEAD, local_rope=local_rope)


def _rope_keys(config: ConfigFile) -> tuple[RopeKeys, RopeKeys]:
    """Where the RoPE of full and of local layers is stated: in sections (v5), or by two bases (v4)."""
    parameters = config.section("rope_parameters")
    if parameters is None:
        theta = config.get_float("rope_local_base_freq", 10_000.0)
        local = ConfigFile(config.subject, {"rope_theta": theta})
        return RopeKeys(theta=1e6), RopeKeys(section=local)
    full, sliding = (parameters.section(f"{kind}_attention") for kind in ("full", "sliding"))
    if full is None or sliding is None or parameters.unread():
        refuse(config, "rope_parameters", "must have the sections full_attention and sliding_attention")
    return RopeKeys(theta=1e6, section=full), RopeKeys(section=sliding)


def _read_gguf(file: GGUFFile, wanted: int | None, name: str, pattern: int) -> Decoder:
    m = file.metadata
    decoder = read_gguf_decoder(file, wanted, name, activation=Activation.GELU_TANH)
    pattern = size(m, f"{name}.attention.sliding_window_pattern", MOST["layers"], pattern)
    window = gguf_window(file)
    local = [bool((layer + 1) % pattern) for layer in range(decoder.num_layers)]
    wide = decoder.num_layers == _WIDE_SCALE_LAYERS[name]
    scalar = decoder.hidden / decoder.num_heads if wide else decoder.head_dim
    return replace(
        _gemma(decoder),
        windows=tuple(window if is_local else 0 for is_local in local),
        attention_scale=scalar**-0.5,
        attention_cap=m.get_float(f"{name}.attn_logit_softcapping", 0.0),
        logit_cap=m.get_float(f"{name}.final_logit_softcapping", 0.0),
    )


def read_gemma2_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    return _read_gguf(file, wanted, "gemma2", 2)


def read_gemma3_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    """Local layers turn at base 10,000 (or rope.freq_base_swa) and are not scaled."""
    decoder = _read_gguf(file, wanted, "gemma3", 6)
    theta = file.metadata.get_float("gemma3.rope.freq_base_swa", 10_000.0)
    context = ContextUse(decoder.context_length, wanted)
    local = rope_from_gguf(file, "gemma3", decoder.head_dim, context, False, local_theta=theta)
    return replace(decoder, qk_norm=QKNorm.HEAD, local_rope=local)


def _config_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    return config_parts({**CONFIG_LAYER, **_NORMS}, norms=add_one)


GEMMA2 = Architecture(
    "gemma2", ("gemma2",), ("gemma2",), read_gemma2_gguf, read_gemma2_config, gguf_parts, _config_parts
)
GEMMA3 = Architecture(
    "gemma3", ("gemma3",), ("gemma3_text",), read_gemma3_gguf, read_gemma3_config, gguf_parts, _config_parts
)
