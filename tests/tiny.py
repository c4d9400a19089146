"""A tiny random llama-shaped model: real plan, real executors, no download. Weights are seeded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pelton.kv import KVArena, KVLayout
from pelton.plan import Plan, PlanBuilder, verify
from pelton.plan.ops import Activation, Attend, Rope
from pelton.quant import format_named
from pelton.quant.format import F32
from pelton.quant.tensor import Tensor, Weight

VOCAB, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN = 96, 64, 4, 2, 16, 96


def tiny_weights(
    layers: int = 2, seed: int = 0, weight_format: str = "F32", spread: float = 1.0
) -> dict[str, Tensor]:
    """Tensors by plan name; matrices in `weight_format`, norms in F32."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (VOCAB, HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.attn_norm": (HIDDEN,),
            f"blk.{layer}.attn_q": (HEADS * HEAD_DIM, HIDDEN),
            f"blk.{layer}.attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"blk.{layer}.attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"blk.{layer}.attn_output": (HIDDEN, HEADS * HEAD_DIM),
            f"blk.{layer}.ffn_norm": (HIDDEN,),
            f"blk.{layer}.ffn_gate": (FFN, HIDDEN),
            f"blk.{layer}.ffn_up": (FFN, HIDDEN),
            f"blk.{layer}.ffn_down": (HIDDEN, FFN),
        }
    tensors = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            values = 1.0 + 0.1 * random.standard_normal(shape)
            tensors[name] = _tensor(name, "F32", values.astype(np.float32))
        else:
            values = spread * random.standard_normal(shape) / np.sqrt(shape[1])
            tensors[name] = _tensor(name, weight_format, values.astype(np.float32))
    return tensors


def _tensor(name: str, format_name: str, values: F32) -> Tensor:
    number_format = format_named(format_name)
    data = number_format.encode(values.reshape(-1, number_format.block)).reshape(-1)
    return Tensor(name, number_format, values.shape, data)


def tiny_plan(weights: Mapping[str, Weight], layers: int = 2, window: int = 0, cap: float = 0.0) -> Plan:
    p = PlanBuilder({name: tensor.shape for name, tensor in weights.items()})
    rope = Rope(HEAD_DIM, tuple(float(10000.0 ** (-i / 8)) for i in range(8)), interleaved=True)
    x = p.embed("token_embd")
    for layer in p.layers(layers):
        h = p.rms_norm(x, layer["attn_norm"], 1e-5)
        q, k, v = (p.linear(h, layer[name]) for name in ("attn_q", "attn_k", "attn_v"))
        attend = Attend(layer.index, HEADS, KV_HEADS, HEAD_DIM, HEAD_DIM**-0.5, window, cap)
        a = p.attend(p.rope(q, rope), p.rope(k, rope), v, attend)
        x = p.add(x, p.linear(a, layer["attn_output"]))
        h = p.rms_norm(x, layer["ffn_norm"], 1e-5)
        gate = p.activation(p.linear(h, layer["ffn_gate"]), Activation.SILU)
        x = p.add(x, p.linear(p.mul(gate, p.linear(h, layer["ffn_up"])), layer["ffn_down"]))
    x = p.select_rows(x)
    plan = p.finish(p.logits(p.rms_norm(x, "output_norm", 1e-5), "token_embd"))
    verify(plan)
    return plan


def tiny_arena(plan: Plan, blocks: int = 64, dtype: str = "float32") -> KVArena:
    return KVArena(KVLayout(plan.kv, dtype), blocks)
