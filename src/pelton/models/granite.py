"""Granite 3 (dense): Llama with multipliers on embedding, attention, residuals and logits."""

from __future__ import annotations

from dataclasses import replace

from ..weights.config_file import ConfigFile
from ..weights.fields import Fields
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder
from .checks import refuse_broken
from .names import gguf_parts, llama_config_parts
from .read_config import read_decoder
from .read_gguf import read_gguf_decoder


def _multiplied(
    decoder: Decoder, fields: Fields, embedding: str, residual: str, attention: str, logits: str
) -> Decoder:
    """The four keys; logits are divided by theirs."""
    divisor = fields.get_float(logits, 1.0)
    if divisor == 0.0:
        refuse_broken(fields, logits, "logits cannot be divided by it")
    return replace(
        decoder,
        embedding_scale=fields.get_float(embedding, 1.0),
        residual_scale=fields.get_float(residual, 1.0),
        attention_scale=fields.get_float(attention, 1.0),
        logit_scale=1.0 / divisor,
    )


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    bias, ffn_bias = config.get_bool("attention_bias", False), config.get_bool("mlp_bias", False)
    decoder = read_decoder(config, wanted, "granite")
    decoder = replace(decoder, qkv_bias=bias, attn_output_bias=bias, ffn_bias=ffn_bias)
    names = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")
    return _multiplied(decoder, config, *names)


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    decoder = read_gguf_decoder(file, wanted, "granite", interleaved=True)
    names = ("embedding_scale", "residual_scale", "attention.scale", "logit_scale")
    return _multiplied(decoder, file.metadata, *(f"granite.{name}" for name in names))


GRANITE = Architecture(
    "granite", ("granite",), ("granite",), read_gguf, read_config, gguf_parts, llama_config_parts
)
