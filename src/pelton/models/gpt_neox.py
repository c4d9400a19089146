"""GPT-NeoX and Pythia: both blocks read the same hidden state, part of each head turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..plan.ops import Activation
from ..quant import Tensor
from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder, NormKind
from .assemble import Part, split_heads, split_rows
from .names import config_parts, gguf_parts, replace_parts
from .read_config import read_decoder
from .read_gguf import read_gguf_decoder
from .read_rope import RopeKeys

_QKV = ("attn_q", "attn_k", "attn_v")
_OUTSIDE = {"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_output": "attention.dense",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}


def _neox(decoder: Decoder, parallel: bool, bias: bool) -> Decoder:
    return replace(
        decoder,
        norm=NormKind.LAYER,
        norm_bias=True,
        gated=False,
        parallel=parallel,
        qkv_bias=bias,
        attn_output_bias=bias,
        ffn_bias=True,
    )


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    keys = RopeKeys(theta_key="rotary_emb_base", share=0.25, share_key="rotary_pct")
    decoder = read_decoder(
        config, wanted, "gpt_neox", rope=keys, eps_key="layer_norm_eps", activation_default="gelu"
    )
    # Some versions of transformers saved both names; they then agree.
    for saved, read, default in (
        ("rope_theta", keys.theta_key, 1e4),
        ("partial_rotary_factor", keys.share_key, 0.25),
    ):
        value = config.get_float(read, default)
        config.expect(saved, value, int(value))
    parallel = config.get_bool("use_parallel_residual", True)
    return _neox(decoder, parallel, config.get_bool("attention_bias", True))


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    """GGUF does not name the activation; the family's is the exact GELU."""
    decoder = read_gguf_decoder(
        file, wanted, "gpt_neox", eps_key="attention.layer_norm_epsilon", activation=Activation.GELU_ERF
    )
    parallel = file.metadata.get_bool("gptneox.use_parallel_residual", True)
    return _neox(decoder, parallel, "blk.0.attn_qkv.bias" in file.tensors)


def _config_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    outside = {**_OUTSIDE, "output": "embed_out" if "embed_out.weight" in tensors else "lm_head"}
    return [
        *config_parts(_LAYER, outside, "gpt_neox.layers."),
        Part(_QKV, "gpt_neox.layers.{layer}.attention.query_key_value", split_heads(decoder.head_dim)),
    ]


def _gguf_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    """Converters put the rows in order: all queries, all keys, all values."""
    return replace_parts(gguf_parts(decoder, tensors), Part(_QKV, "blk.{layer}.attn_qkv", split_rows))


GPT_NEOX = Architecture(
    "gpt_neox", ("gptneox",), ("gpt_neox",), read_gguf, read_config, _gguf_parts, _config_parts
)
