"""Where weights stand in Hugging Face folders and GGUF files, for most families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..quant import Tensor
from .architecture import Decoder
from .assemble import Convert, Part, keep

CONFIG_OUTSIDE: Mapping[str, str] = MappingProxyType(
    {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
)
CONFIG_LAYER: Mapping[str, str] = MappingProxyType(
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
_GGUF_LAYER = (
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_q_norm", "attn_k_norm", "attn_output"),
    *("post_attention_norm", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down", "post_ffw_norm"),
    *("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
)
_GGUF_OUTSIDE = ("token_embd", "position_embd", "output_norm", "output")


def config_parts(
    layer: Mapping[str, str] = CONFIG_LAYER,
    outside: Mapping[str, str] = CONFIG_OUTSIDE,
    root: str = "model.layers.",
    norms: Convert = keep,
) -> list[Part]:
    """One part a name: plan name -> the source's. `norms` converts all weights whose name ends in norm."""
    named = {**outside, **{name: f"{root}{{layer}}.{source}" for name, source in layer.items()}}
    return [Part((name,), source, norms if name.endswith("norm") else keep) for name, source in named.items()]


def llama_config_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    """The names of Hugging Face's Llama and all that copied it."""
    return config_parts()


def gguf_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    """GGUF names are the plan's own."""
    outside = [Part((name,), name, keep) for name in _GGUF_OUTSIDE]
    return outside + [Part((name,), f"blk.{{layer}}.{name}", keep) for name in _GGUF_LAYER]


def replace_parts(parts: Sequence[Part], *special: Part) -> list[Part]:
    """`special` instead of the parts that make the same weights."""
    made = {target for part in special for target in part.targets}
    return [part for part in parts if not made & set(part.targets)] + list(special)
