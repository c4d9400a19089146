"""OLMo 2: norms after the blocks only, queries and keys normalized over all heads at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..quant import Tensor
from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder, QKNorm
from .assemble import Part
from .names import CONFIG_LAYER, config_parts, gguf_parts
from .read_config import read_decoder
from .read_gguf import read_gguf_decoder

_NORMS = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}


def _olmo2(decoder: Decoder) -> Decoder:
    return replace(decoder, pre_norm=False, post_norm=True, qk_norm=QKNorm.ROW)


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    bias = config.get_bool("attention_bias", False)
    decoder = read_decoder(config, wanted, "olmo2")
    return replace(_olmo2(decoder), qkv_bias=bias, attn_output_bias=bias)


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    return _olmo2(read_gguf_decoder(file, wanted, "olmo2"))


def _config_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    return config_parts({**CONFIG_LAYER, **_NORMS})


OLMO2 = Architecture("olmo2", ("olmo2",), ("olmo2",), read_gguf, read_config, gguf_parts, _config_parts)
