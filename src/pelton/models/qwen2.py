"""Qwen 2 and 2.5: Llama with biases on queries, keys and values."""

from __future__ import annotations

from dataclasses import replace

from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder
from .names import gguf_parts, llama_config_parts
from .read_config import layered_windows, read_decoder
from .read_gguf import read_gguf_decoder


def qwen_windows(config: ConfigFile, layers: int) -> tuple[int, ...]:
    """ "use_sliding_window" switches windows on for the layers from "max_window_layers" on."""
    first = config.get_int("max_window_layers", layers)
    enabled = config.get_bool("use_sliding_window", False)
    return layered_windows(config, layers, lambda layer: enabled and layer >= first)


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    decoder = read_decoder(config, wanted, "qwen2")
    return replace(decoder, qkv_bias=True, windows=qwen_windows(config, decoder.num_layers))


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    return replace(read_gguf_decoder(file, wanted, "qwen2"), qkv_bias=True)


QWEN2 = Architecture("qwen2", ("qwen2",), ("qwen2",), read_gguf, read_config, gguf_parts, llama_config_parts)
