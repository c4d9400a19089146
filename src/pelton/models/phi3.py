"""Phi 3: Llama with query, key and value (and gate and up) in one matrix; LongRoPE for long contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..quant import Tensor
from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder
from .assemble import Part, split_rows
from .names import config_parts, gguf_parts, replace_parts
from .read_config import one_window, read_decoder
from .read_gguf import gguf_window, read_gguf_decoder

_QKV = ("attn_q", "attn_k", "attn_v")
_GATE_UP = ("ffn_gate", "ffn_up")


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    decoder = read_decoder(config, wanted, "phi3")
    config.get_int("original_max_position_embeddings", None)  # counts under longrope only
    return replace(decoder, windows=one_window(config, decoder.num_layers))


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    decoder = read_gguf_decoder(file, wanted, "phi3")
    return replace(decoder, windows=(gguf_window(file),) * decoder.num_layers)


def _config_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    layer = "model.layers.{layer}."
    return replace_parts(
        config_parts(),
        Part(_QKV, layer + "self_attn.qkv_proj", split_rows),
        Part(_GATE_UP, layer + "mlp.gate_up_proj", split_rows),
    )


def _gguf_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    """GGUF's ffn_up holds the gate's rows, then those of up."""
    parts = gguf_parts(decoder, tensors)
    if "blk.0.attn_qkv.weight" in tensors:
        parts = replace_parts(parts, Part(_QKV, "blk.{layer}.attn_qkv", split_rows))
    return replace_parts(parts, Part(_GATE_UP, "blk.{layer}.ffn_up", split_rows))


PHI3 = Architecture("phi3", ("phi3",), ("phi3",), read_gguf, read_config, _gguf_parts, _config_parts)
