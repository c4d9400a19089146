"""Llama 2 and 3, SmolLM2, Mistral: the family most others are variants of."""

from __future__ import annotations

from dataclasses import replace

from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder
from .mixtral import read_mixture
from .names import gguf_parts, llama_config_parts
from .read_config import one_window, read_decoder
from .read_gguf import gguf_window, read_gguf_decoder


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    """llama.* keys. Converters reorder query and key rows, so neighbours turn; Mixtral is here too."""
    decoder = read_gguf_decoder(file, wanted, "llama", interleaved=True)
    mixture = read_mixture(file, decoder.intermediate)
    return replace(decoder, windows=(gguf_window(file),) * decoder.num_layers, mixture=mixture)


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    decoder = read_decoder(config, wanted, "llama")
    bias = config.get_bool("attention_bias", False)
    return replace(decoder, qkv_bias=bias, attn_output_bias=bias, ffn_bias=config.get_bool("mlp_bias", False))


def read_mistral_config(config: ConfigFile, wanted: int | None) -> Decoder:
    decoder = read_decoder(config, wanted, "mistral")
    return replace(decoder, windows=one_window(config, decoder.num_layers))


LLAMA = Architecture("llama", ("llama",), ("llama",), read_gguf, read_config, gguf_parts, llama_config_parts)
MISTRAL = Architecture(
    "mistral", (), ("mistral",), read_gguf, read_mistral_config, gguf_parts, llama_config_parts
)
