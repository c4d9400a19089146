"""GPT-2: learned positions, layer norms, biases everywhere, no gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..plan.ops import Activation
from ..quant import Tensor
from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder, NormKind
from .assemble import Part, keep, split_rows, transpose
from .checks import MOST, size
from .names import gguf_parts, replace_parts
from .read_config import activation, split_head_dim
from .read_gguf import read_gguf_decoder
from .read_rope import ContextUse

_QKV = ("attn_q", "attn_k", "attn_v")


def _gpt2(decoder: Decoder) -> Decoder:
    return replace(
        decoder,
        norm=NormKind.LAYER,
        norm_bias=True,
        gated=False,
        learned_positions=True,
        qkv_bias=True,
        attn_output_bias=True,
        ffn_bias=True,
    )


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    config.expect("scale_attn_weights", True)
    config.expect("scale_attn_by_inverse_layer_idx", False)
    heads, hidden = size(config, "n_head", MOST["heads"]), size(config, "n_embd", MOST["width"])
    layers = size(config, "n_layer", MOST["layers"])
    dim = split_head_dim(config, "head_dim", hidden, heads)
    decoder = Decoder(
        architecture="gpt2",
        vocab_size=size(config, "vocab_size", MOST["vocab"]),
        context_length=ContextUse(size(config, "n_positions", MOST["context"]), wanted).trained,
        num_layers=layers,
        hidden=hidden,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=dim,
        intermediate=size(config, "n_inner", MOST["width"], 4 * hidden),
        eps=config.get_float("layer_norm_epsilon", 1e-5),
        windows=(0,) * layers,
        rope=None,
        tied=config.get_bool("tie_word_embeddings", True),
        activation=activation(config, "activation_function", "gelu_new"),
        attention_scale=dim**-0.5,
    )
    return _gpt2(decoder)


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    eps_key = "attention.layer_norm_epsilon"
    decoder = read_gguf_decoder(
        file, wanted, "gpt2", eps_key=eps_key, activation=Activation.GELU_TANH, rotary=False
    )
    return _gpt2(decoder)


def _config_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    """Linear weights stand as [inputs, outputs]; the first releases have no "transformer." in front."""
    root = "transformer." if "transformer.wte.weight" in tensors else ""
    layer = root + "h.{layer}."
    return [
        Part(("token_embd",), root + "wte", keep),
        Part(("position_embd",), root + "wpe", keep),
        Part(("output_norm",), root + "ln_f", keep),
        Part(("output",), "lm_head", keep),
        Part(("attn_norm",), layer + "ln_1", keep),
        Part(_QKV, layer + "attn.c_attn", transpose),
        Part(("attn_output",), layer + "attn.c_proj", transpose),
        Part(("ffn_norm",), layer + "ln_2", keep),
        Part(("ffn_up",), layer + "mlp.c_fc", transpose),
        Part(("ffn_down",), layer + "mlp.c_proj", transpose),
    ]


def _gguf_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    return replace_parts(gguf_parts(decoder, tensors), Part(_QKV, "blk.{layer}.attn_qkv", split_rows))


GPT2 = Architecture("gpt2", ("gpt2",), ("gpt2",), read_gguf, read_config, _gguf_parts, _config_parts)
