"""Models with random weights: `synthetic:llama-1b?format=Q4_0&seed=1&context=2048`.

Some real shapes have names; `synthetic:./folder?format=Q8_0` takes any architecture and size from the
config.json of a folder that needs to hold nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..errors import ConfigError, ModelFileError
from ..plan.ops import Rope
from ..quant import Format, Weight, format_named
from ..weights.synthetic import synthetic_weight
from . import rope as scaling
from .architecture import Decoder, Mixture, QKNorm
from .build import weight_shapes

PREFIX = "synthetic:"
_OPTION = re.compile(r"(format|seed|context|layers)=([A-Za-z0-9_]{1,16})")
_LARGEST = {"seed": 2**32 - 1, "context": 1 << 20, "layers": 1024}


def _decoder(
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    intermediate: int,
    vocab: int,
    context: int,
    *,
    head_dim: int | None = None,
    theta: float = 10_000.0,
    tied: bool = False,
    architecture: str = "llama",
) -> Decoder:
    dim = head_dim or hidden // heads
    return Decoder(
        architecture=architecture,
        vocab_size=vocab,
        context_length=context,
        num_layers=layers,
        hidden=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim,
        intermediate=intermediate,
        eps=1e-5,
        windows=(0,) * layers,
        rope=Rope(dim, tuple(float(f) for f in scaling.plain(theta, dim))),
        tied=tied,
        attention_scale=dim**-0.5,
    )


_QWEN3 = _decoder(
    *(1024, 28, 16, 8, 3072, 151_936, 40_960), head_dim=128, theta=1e6, tied=True, architecture="qwen3"
)
_QWEN3_MOE = _decoder(
    *(2048, 48, 32, 4, 6144, 151_936, 40_960), head_dim=128, theta=1e6, architecture="qwen3_moe"
)
SHAPES: Mapping[str, Decoder] = MappingProxyType(
    {
        "llama-135m": _decoder(576, 30, 9, 3, 1536, 49_152, 8192, theta=1e5, tied=True),  # SmolLM2
        "llama-1b": _decoder(2048, 16, 32, 8, 8192, 128_256, 131_072, theta=5e5, tied=True),  # Llama 3.2
        "llama-3b": _decoder(3072, 28, 24, 8, 8192, 128_256, 131_072, theta=5e5, tied=True),  # Llama 3.2
        "llama-7b": _decoder(4096, 32, 32, 32, 11_008, 32_000, 4096),  # Llama 2
        "llama-8b": _decoder(4096, 32, 32, 8, 14_336, 128_256, 131_072, theta=5e5),  # Llama 3.1
        "qwen3-0.6b": replace(_QWEN3, qk_norm=QKNorm.HEAD),
        "qwen3-30b-a3b": replace(_QWEN3_MOE, qk_norm=QKNorm.HEAD, mixture=Mixture(128, 8, 768, True)),
    }
)


@dataclass(frozen=True)
class SyntheticModel:
    """A parsed reference. `context` None: the shape's own length."""

    name: str
    decoder: Decoder
    format: Format
    seed: int
    context: int | None


def parse_synthetic(reference: str, read_folder: Callable[[Path], Decoder]) -> SyntheticModel:
    """`synthetic:NAME[?option=value&...]` with format (Q4_0), seed (0), context, layers.

    A NAME with a slash is a folder, whose config.json `read_folder` reads. Raises ConfigError for an
    unknown name, option or value, and what `read_folder` raises.
    """
    name, _, query = reference.removeprefix(PREFIX).partition("?")
    if name not in SHAPES and "/" not in name:
        shapes = ", ".join(SHAPES)
        raise ConfigError(f"is not one of {shapes}, nor a folder", field="synthetic model", value=name)
    options: dict[str, str] = {}
    for item in query.split("&") if query else ():
        found = _OPTION.fullmatch(item)
        if found is None or found[1] in options:
            raise ConfigError(
                "options are format, seed, context and layers, once each", subject=reference, value=item
            )
        options[found[1]] = found[2]
    decoder = SHAPES[name] if name in SHAPES else read_folder(Path(name))
    layers = _number(reference, options, "layers") or decoder.num_layers
    try:
        chosen = format_named(options.get("format", "Q4_0"))
    except ModelFileError as error:
        raise ConfigError(error.message, subject=reference, field="format", value=error.value) from None
    context = _number(reference, options, "context")
    windows = (decoder.windows * layers)[:layers]
    decoder = replace(decoder, num_layers=layers, windows=windows)
    return SyntheticModel(name, decoder, chosen, _number(reference, options, "seed") or 0, context)


def _number(reference: str, options: Mapping[str, str], key: str) -> int | None:
    if key not in options:
        return None
    text, least = options[key], 0 if key == "seed" else 1
    if not text.isdecimal() or not least <= int(text) <= _LARGEST[key]:
        raise ConfigError(
            f"must be from {least} to {_LARGEST[key]}", subject=reference, field=key, value=text
        )
    return int(text)


def synthetic_weights(model: SyntheticModel) -> dict[str, Weight]:
    """All weights but a tied output; none is made yet."""
    shapes = weight_shapes(model.decoder)
    if model.decoder.tied:
        del shapes["output"]
    return {name: synthetic_weight(name, shape, model.format, model.seed) for name, shape in shapes.items()}
