"""The plan of a decoder, written once for all families, and the weights it reads."""

from __future__ import annotations

import math

from ..plan import LayerWeights, Plan, PlanBuilder, Value
from ..plan.ops import Attend, Experts
from .architecture import Decoder, NormKind, QKNorm

Shapes = dict[str, tuple[int, ...]]


def build(p: PlanBuilder, d: Decoder) -> Plan:
    """The forward pass; weights are named as GGUF names them, without ".weight"."""
    x = p.embed("token_embd", d.embedding_scale)
    if d.learned_positions:
        x = p.add(x, p.embed_positions("position_embd"))
    for layer in p.layers(d.num_layers):
        x = _parallel_layer(p, d, layer, x) if d.parallel else _layer(p, d, layer, x)
    x = _norm(p, d, p.select_rows(x), "output_norm")
    logits = p.scale(p.logits(x, "output"), d.logit_scale)
    return p.finish(p.soft_cap(logits, d.logit_cap))


def _layer(p: PlanBuilder, d: Decoder, layer: LayerWeights, x: Value) -> Value:
    h = _norm(p, d, x, layer["attn_norm"]) if d.pre_norm else x
    h = _attention(p, d, layer, h)
    h = _norm(p, d, h, layer["post_attention_norm"]) if d.post_norm else h
    x = p.add(x, p.scale(h, d.residual_scale))
    h = _norm(p, d, x, layer["ffn_norm"]) if d.pre_norm else x
    h = _feed_forward(p, d, layer, h)
    h = _norm(p, d, h, layer["post_ffw_norm"]) if d.post_norm else h
    return p.add(x, p.scale(h, d.residual_scale))


def _parallel_layer(p: PlanBuilder, d: Decoder, layer: LayerWeights, x: Value) -> Value:
    h = _norm(p, d, x, layer["attn_norm"])
    g = h if d.shared_norm else _norm(p, d, x, layer["ffn_norm"])
    return p.add(p.add(x, _attention(p, d, layer, h)), _feed_forward(p, d, layer, g))


def _norm(p: PlanBuilder, d: Decoder, x: Value, weight: str, group: int = 0) -> Value:
    if d.norm is NormKind.RMS:
        return p.rms_norm(x, weight, d.eps, group)
    return p.layer_norm(x, weight, d.eps, p.optional(f"{weight}.bias"), group)


def _linear(p: PlanBuilder, x: Value, weight: str) -> Value:
    return p.linear(x, weight, p.optional(f"{weight}.bias"))


def _attention(p: PlanBuilder, d: Decoder, layer: LayerWeights, x: Value) -> Value:
    q, k, v = (_linear(p, x, layer[name]) for name in ("attn_q", "attn_k", "attn_v"))
    if d.qk_norm is not QKNorm.NONE:
        group = 0 if d.qk_norm is QKNorm.ROW else d.head_dim
        q = _norm(p, d, q, layer["attn_q_norm"], group)
        k = _norm(p, d, k, layer["attn_k_norm"], group)
    window = d.windows[layer.index]
    rope = d.local_rope if window and d.local_rope is not None else d.rope
    if rope is not None:
        q, k = p.rope(q, rope), p.rope(k, rope)
    attend = Attend(
        kv_layer=layer.index,
        num_heads=d.num_heads,
        num_kv_heads=d.num_kv_heads,
        head_dim=d.head_dim,
        scale=d.attention_scale,
        window=window,
        cap=d.attention_cap,
    )
    return _linear(p, p.attend(q, k, v, attend), layer["attn_output"])


def _feed_forward(p: PlanBuilder, d: Decoder, layer: LayerWeights, x: Value) -> Value:
    if d.mixture is not None:
        top_k = d.mixture.top_k
        routed = p.route(p.linear(x, layer["ffn_gate_inp"]), top_k, d.mixture.normalize)
        gate, up, down = (layer[f"ffn_{part}_exps"] for part in ("gate", "up", "down"))
        return p.experts(x, routed, Experts(gate, up, down, d.activation, top_k, d.mixture.width))
    if not d.gated:
        return _linear(p, p.activation(_linear(p, x, layer["ffn_up"]), d.activation), layer["ffn_down"])
    gated = p.activation(_linear(p, x, layer["ffn_gate"]), d.activation)
    return _linear(p, p.mul(gated, _linear(p, x, layer["ffn_up"])), layer["ffn_down"])


def weight_shapes(d: Decoder) -> Shapes:
    """Name -> shape of every weight the plan reads, "output" included; matrices are [outputs, inputs]."""
    shapes: Shapes = {"token_embd": (d.vocab_size, d.hidden)}
    if d.learned_positions:
        shapes["position_embd"] = (d.context_length, d.hidden)
    for index in range(d.num_layers):
        shapes.update({f"blk.{index}.{name}": shape for name, shape in _layer_shapes(d).items()})
    shapes.update(_with_bias({"output_norm": (d.hidden,)}, d.norm_bias))
    shapes["output"] = (d.vocab_size, d.hidden)
    return shapes


def parameter_count(d: Decoder) -> int:
    """Numbers in all weights; a tied output counts once."""
    shapes = weight_shapes(d)
    if d.tied:
        del shapes["output"]
    return sum(math.prod(shape) for shape in shapes.values())


def _with_bias(weights: Shapes, wanted: bool) -> Shapes:
    if not wanted:
        return weights
    return {**weights, **{f"{name}.bias": (shape[0],) for name, shape in weights.items()}}


def _layer_shapes(d: Decoder) -> Shapes:
    width, queries, keys = d.hidden, d.num_heads * d.head_dim, d.num_kv_heads * d.head_dim
    norms = ["attn_norm"] * d.pre_norm + ["ffn_norm"] * (d.pre_norm and not d.shared_norm)
    norms += ["post_attention_norm", "post_ffw_norm"] * d.post_norm
    shapes = _with_bias(dict.fromkeys(norms, (width,)), d.norm_bias)
    qkv = {"attn_q": (queries, width), "attn_k": (keys, width), "attn_v": (keys, width)}
    shapes.update(_with_bias({**qkv}, d.qkv_bias))
    shapes.update(_with_bias({"attn_output": (width, queries)}, d.attn_output_bias))
    if d.qk_norm is QKNorm.HEAD:
        shapes.update({"attn_q_norm": (d.head_dim,), "attn_k_norm": (d.head_dim,)})
    elif d.qk_norm is not QKNorm.NONE:
        shapes.update({"attn_q_norm": (queries,), "attn_k_norm": (keys,)})
    if d.mixture is not None:
        wide = (d.mixture.experts, d.mixture.width, width)
        shapes.update({"ffn_gate_inp": (d.mixture.experts, width)})
        shapes.update(
            {"ffn_gate_exps": wide, "ffn_up_exps": wide, "ffn_down_exps": (wide[0], width, wide[1])}
        )
        return shapes
    names = ("ffn_gate", "ffn_up") if d.gated else ("ffn_up",)
    feed_forward: Shapes = dict.fromkeys(names, (d.intermediate, width))
    shapes.update(_with_bias({**feed_forward, "ffn_down": (width, d.intermediate)}, d.ffn_bias))
    return shapes
