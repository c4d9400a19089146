"""StableLM 3B to 12B: layer norms, part of each head turns, later ones with parallel blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..quant import Tensor
from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder, NormKind, QKNorm
from .assemble import Part, flatten, stack
from .names import config_parts, gguf_parts, replace_parts
from .read_config import read_decoder
from .read_gguf import read_gguf_decoder
from .read_rope import RopeKeys

_NORM = "model.layers.{layer}.self_attn."


def _stablelm(decoder: Decoder, parallel: bool, qk_norm: bool) -> Decoder:
    return replace(
        decoder,
        norm=NormKind.LAYER,
        norm_bias=True,
        parallel=parallel,
        shared_norm=parallel,
        qk_norm=QKNorm.HEADS if qk_norm else QKNorm.NONE,
    )


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    decoder = read_decoder(config, wanted, "stablelm", eps_key="layer_norm_eps", rope=RopeKeys(share=0.25))
    decoder = replace(decoder, qkv_bias=config.get_bool("use_qkv_bias", False))
    parallel = config.get_bool("use_parallel_residual", False)
    return _stablelm(decoder, parallel, config.get_bool("qk_layernorm", False))


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    """The tensors decide, as in llama.cpp: without a second norm both blocks share the first."""
    decoder = read_gguf_decoder(file, wanted, "stablelm", eps_key="attention.layer_norm_epsilon")
    file.metadata.get_bool("stablelm.use_parallel_residual", None)
    parallel = "blk.0.ffn_norm.weight" not in file.tensors
    return _stablelm(decoder, parallel, "blk.0.attn_q_norm.weight" in file.tensors)


def _config_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    return replace_parts(
        config_parts(),
        Part(("attn_q_norm",), _NORM + "q_layernorm.norms.{item}", stack, decoder.num_heads),
        Part(("attn_k_norm",), _NORM + "k_layernorm.norms.{item}", stack, decoder.num_kv_heads),
    )


def _gguf_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    norms = [Part((name,), f"blk.{{layer}}.{name}", flatten) for name in ("attn_q_norm", "attn_k_norm")]
    return replace_parts(gguf_parts(decoder, tensors), *norms)


STABLELM = Architecture(
    "stablelm", ("stablelm",), ("stablelm",), read_gguf, read_config, _gguf_parts, _config_parts
)
