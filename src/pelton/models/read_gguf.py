"""GGUF metadata -> Decoder: what most families share (keys: ggml's gguf.md and llama.cpp's reading)."""

from __future__ import annotations

from ..errors import ModelFileError, UnsupportedModelError
from ..plan.ops import Activation, Rope
from ..quant import Tensor
from ..weights.fields import Fields
from ..weights.gguf import GGUFFile
from . import rope as scaling
from .architecture import Decoder
from .checks import MOST, positive, refuse, refuse_broken, size
from .read_config import split_head_dim
from .read_rope import ContextUse

_FACTORS = {
    "plain": "rope_freqs.weight",
    "long": "rope_factors_long.weight",
    "short": "rope_factors_short.weight",
}


def bias_of(file: GGUFFile, name: str) -> bool:
    """Whether layer 0 has that bias; all layers must then have it."""
    return f"blk.0.{name}.bias" in file.tensors


def _vocabulary(file: GGUFFile, arch: str) -> int:
    """Rows of the embedding table; the key that may repeat it must agree."""
    table = file.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        found = None if table is None else table.shape
        raise ModelFileError("must be a matrix", subject=file.path, field="token_embd.weight", value=found)
    if size(file.metadata, f"{arch}.vocab_size", MOST["vocab"], table.shape[0]) != table.shape[0]:
        refuse_broken(file.metadata, f"{arch}.vocab_size", f"token_embd.weight has {table.shape[0]} rows")
    return table.shape[0]


def _head_dim(m: Fields, arch: str, hidden: int, heads: int) -> int:
    dim = split_head_dim(m, f"{arch}.attention.key_length", hidden, heads)
    if size(m, f"{arch}.attention.value_length", MOST["heads"], dim) != dim:
        refuse(m, f"{arch}.attention.value_length", f"must equal the key length {dim}")
    return dim


def read_gguf_decoder(
    file: GGUFFile,
    wanted: int | None,
    architecture: str,
    *,
    interleaved: bool = False,
    eps_key: str = "attention.layer_norm_rms_epsilon",
    activation: Activation = Activation.SILU,
    rotary: bool = True,
) -> Decoder:
    """The keys that all families share. `interleaved`: query and key rows are ordered for neighbours.

    The result has the biases whose tensors are there, and no windows.
    """
    m, arch = file.metadata, file.metadata.get_str("general.architecture")
    heads = per_layer(m, f"{arch}.attention.head_count", None)
    hidden = size(m, f"{arch}.embedding_length", MOST["width"])
    dim = _head_dim(m, arch, hidden, heads)
    context = ContextUse(size(m, f"{arch}.context_length", MOST["context"]), wanted)
    layers = size(m, f"{arch}.block_count", MOST["layers"])
    return Decoder(
        architecture=architecture,
        vocab_size=_vocabulary(file, arch),
        context_length=context.trained,
        num_layers=layers,
        hidden=hidden,
        num_heads=heads,
        num_kv_heads=per_layer(m, f"{arch}.attention.head_count_kv", heads),
        head_dim=dim,
        intermediate=per_layer(m, f"{arch}.feed_forward_length", None),
        eps=m.get_float(f"{arch}.{eps_key}"),
        windows=(0,) * layers,
        rope=rope_from_gguf(file, arch, dim, context, interleaved) if rotary else None,
        tied="output.weight" not in file.tensors,
        activation=activation,
        qkv_bias=bias_of(file, "attn_q"),
        attn_output_bias=bias_of(file, "attn_output"),
        ffn_bias=bias_of(file, "ffn_down"),
        attention_scale=dim**-0.5,
    )


def per_layer(m: Fields, key: str, default: int | None) -> int:
    """A size that GGUF may state once or once a layer; all layers must agree."""
    if not m.is_array(key):
        return size(m, key, MOST["width"], default)
    values = m.get_array(key)
    alike = bool(values) and all(type(value) is int and value == values[0] for value in values)
    if not alike or not 1 <= values[0] <= MOST["width"]:
        refuse(m, key, "only one size for all layers is supported")
    return int(values[0])


def gguf_window(file: GGUFFile) -> int:
    """attention.sliding_window, 0 where there is none."""
    key = f"{file.metadata.get_str('general.architecture')}.attention.sliding_window"
    return 0 if file.metadata.get_int(key, 0) == 0 else size(file.metadata, key, MOST["context"])


def rope_from_gguf(
    file: GGUFFile,
    arch: str,
    head_dim: int,
    context: ContextUse,
    interleaved: bool,
    local_theta: float | None = None,
) -> Rope:
    """RoPE as GGUF states it: rope.* keys and the tensors rope_freqs and rope_factors_long/short.

    `local_theta` asks for the unscaled RoPE of layers with a window of their own base.
    """
    m, base_key = file.metadata, f"{arch}.rope.freq_base"
    theta = float(m.get_float(base_key, 10_000.0) if local_theta is None else local_theta)
    if not 1.0 < theta < 1e15:
        refuse_broken(m, base_key, "must be above 1")
    dim = size(m, f"{arch}.rope.dimension_count", head_dim, head_dim)
    if dim % 2 or (interleaved and dim != head_dim):
        refuse(m, f"{arch}.rope.dimension_count", f"cannot turn that part of a head of {head_dim}")
    frequencies, magnitude = scaling.plain(theta, dim), 1.0
    if local_theta is None:
        frequencies, magnitude = _scaled(file, arch, theta, dim, context)
    return Rope(head_dim, tuple(float(f) for f in frequencies), magnitude, interleaved)


def _scaled(
    file: GGUFFile, arch: str, theta: float, dim: int, context: ContextUse
) -> tuple[scaling.F64, float]:
    m = file.metadata
    prefix = f"{arch}.rope.scaling"
    original = size(m, f"{prefix}.original_context_length", MOST["context"], context.trained)
    legacy = positive(m, f"{arch}.rope.scale_linear", 1.0)
    factor = positive(m, f"{prefix}.factor", legacy)
    attention = positive(m, f"{prefix}.attn_factor", 1.0)
    kind = m.get_str(f"{prefix}.type", "none" if factor == 1.0 else "linear")
    m.get_bool(f"{prefix}.finetuned", None)
    if kind == "yarn":
        frequencies = scaling.yarn(
            theta,
            dim,
            factor=factor,
            original=original,
            beta_fast=positive(m, f"{prefix}.yarn_beta_fast", 32.0),
            beta_slow=positive(m, f"{prefix}.yarn_beta_slow", 1.0),
        )
        m.expect(f"{prefix}.yarn_ext_factor", 1.0)
        m.expect(f"{prefix}.yarn_attn_factor", 1.0)
        return _divided(file, frequencies, context, original), attention * scaling.yarn_magnitude(factor)
    if kind not in ("none", "linear", "longrope"):
        refuse(m, f"{prefix}.type", "only none, linear, yarn and longrope are supported")
    slower = factor if kind == "linear" else 1.0
    return _divided(file, scaling.plain(theta, dim) / slower, context, original), attention


def _divided(file: GGUFFile, frequencies: scaling.F64, context: ContextUse, original: int) -> scaling.F64:
    """Frequencies over the factors that the file has tensors for."""
    tensor = file.tensors.get(_FACTORS["plain"])
    if _FACTORS["long"] in file.tensors or _FACTORS["short"] in file.tensors:
        name = _FACTORS["long" if context.length > original else "short"]
        tensor = file.tensors.get(name)
        if tensor is None:
            raise ModelFileError("the tensor is missing", subject=file.path, field="tensor", value=name)
    return frequencies if tensor is None else frequencies / _factors(file, tensor, len(frequencies))


def _factors(file: GGUFFile, tensor: Tensor, count: int) -> scaling.F64:
    if tensor.shape != (count,) or tensor.format.name != "F32":
        raise ModelFileError(
            f"must be {count} numbers in F32",
            subject=file.path,
            field=f"tensor {tensor.name}",
            value=(tensor.shape, tensor.format.name),
        )
    factors = tensor.dequantize().astype("float64")
    if not bool(((factors >= 1e-6) & (factors <= 1e6)).all()):
        raise ModelFileError("must be from 1e-6 to 1e6", subject=file.path, field=f"tensor {tensor.name}")
    return factors


def refuse_unread(file: GGUFFile) -> None:
    """Raise UnsupportedModelError for a key of this architecture that no reader asked for."""
    m = file.metadata
    arch = m.get_str("general.architecture")
    m.expect("general.type", "model")
    m.expect(f"{arch}.attention.causal", True)
    m.expect(f"{arch}.tensor_data_layout", "Meta AI original pth", "reference")
    for key in m.unread():
        if key.startswith(f"{arch}."):
            refuse(m, key, "is not a setting known for this architecture")


def require_softmax_gate(file: GGUFFile) -> None:
    """Raise UnsupportedModelError for routers other than softmax over all experts."""
    m = file.metadata
    arch = m.get_str("general.architecture")
    m.expect(f"{arch}.expert_gating_func", 1)
    m.expect(f"{arch}.expert_weights_scale", 0.0, 1.0)
    if m.get_int(f"{arch}.expert_shared_count", 0):
        raise UnsupportedModelError(
            "shared experts are not supported", subject=file.path, field=f"{arch}.expert_shared_count"
        )
