"""Qwen 3: queries and keys are normalized head by head; its mixture has small experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..quant import Tensor
from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder, Mixture, QKNorm
from .assemble import Part, keep, stack
from .checks import MOST, refuse, size
from .mixtral import read_mixture
from .names import config_parts, gguf_parts, llama_config_parts
from .qwen2 import qwen_windows
from .read_config import one_window, read_decoder
from .read_gguf import read_gguf_decoder

_EXPERT = "model.layers.{layer}.mlp.experts.{item}."


def _read(config: ConfigFile, wanted: int | None, name: str, head_dim: int | None) -> Decoder:
    decoder = read_decoder(config, wanted, name, head_dim=head_dim)
    bias = config.get_bool("attention_bias", False)
    return replace(decoder, qk_norm=QKNorm.HEAD, qkv_bias=bias, attn_output_bias=bias)


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    decoder = _read(config, wanted, "qwen3", 128)
    return replace(decoder, windows=qwen_windows(config, decoder.num_layers))


def read_moe_config(config: ConfigFile, wanted: int | None) -> Decoder:
    decoder = _read(config, wanted, "qwen3_moe", None)
    if config.get_array("mlp_only_layers", []):
        refuse(config, "mlp_only_layers", "layers without experts are not supported")
    config.expect("decoder_sparse_step", 1)
    config.get_int("max_window_layers", None)
    layers = decoder.num_layers
    windows = one_window(config, layers) if config.get_bool("use_sliding_window", False) else (0,) * layers
    config.get_int("sliding_window", None)
    count_key = "num_experts" if "num_experts" in config else "num_local_experts"
    mixture = Mixture(
        experts=size(config, count_key, MOST["experts"]),
        top_k=size(config, "num_experts_per_tok", MOST["experts"]),
        width=size(config, "moe_intermediate_size", MOST["width"]),
        normalize=config.get_bool("norm_topk_prob", False),
    )
    return replace(decoder, mixture=mixture, windows=windows)


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    return replace(read_gguf_decoder(file, wanted, "qwen3"), qk_norm=QKNorm.HEAD)


def read_moe_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    decoder = read_gguf_decoder(file, wanted, "qwen3_moe")
    return replace(decoder, qk_norm=QKNorm.HEAD, mixture=read_mixture(file, decoder.intermediate))


def _moe_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    assert decoder.mixture is not None
    return [
        *config_parts(),
        Part(("ffn_gate_inp",), "model.layers.{layer}.mlp.gate", keep),
        *(
            Part((f"ffn_{name}_exps",), f"{_EXPERT}{name}_proj", stack, decoder.mixture.experts)
            for name in ("gate", "up", "down")
        ),
    ]


QWEN3 = Architecture("qwen3", ("qwen3",), ("qwen3",), read_gguf, read_config, gguf_parts, llama_config_parts)
QWEN3_MOE = Architecture(
    "qwen3_moe", ("qwen3moe",), ("qwen3_moe",), read_moe_gguf, read_moe_config, gguf_parts, _moe_parts
)
