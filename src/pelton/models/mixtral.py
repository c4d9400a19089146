"""Mixtral: Mistral with a mixture of experts. Its GGUF files call themselves llama."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..quant import Tensor
from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .architecture import Architecture, Decoder, Mixture
from .assemble import Part, keep, stack
from .checks import MOST, size
from .names import config_parts, gguf_parts
from .read_config import one_window, read_decoder
from .read_gguf import read_gguf_decoder, require_softmax_gate
from .read_rope import RopeKeys

_EXPERT = "model.layers.{layer}.block_sparse_moe.experts.{item}."


def read_mixture(file: GGUFFile, width: int) -> Mixture | None:
    """The experts of a GGUF file, None where it has none; `width` is the feed-forward block's own."""
    m = file.metadata
    arch = m.get_str("general.architecture")
    count = m.get_int(f"{arch}.expert_count", 0)
    top_k = m.get_int(f"{arch}.expert_used_count", 0)
    if count == 0:
        return None
    require_softmax_gate(file)
    width = size(m, f"{arch}.expert_feed_forward_length", MOST["width"], width)
    normalize = m.get_bool(f"{arch}.expert_weights_norm", True)
    return Mixture(size(m, f"{arch}.expert_count", MOST["experts"]), top_k, width, normalize)


def read_config(config: ConfigFile, wanted: int | None) -> Decoder:
    decoder = read_decoder(config, wanted, "mixtral", rope=RopeKeys(theta=1e6))
    mixture = Mixture(
        experts=size(config, "num_local_experts", MOST["experts"]),
        top_k=size(config, "num_experts_per_tok", MOST["experts"]),
        width=decoder.intermediate,
        normalize=True,
    )
    return replace(decoder, mixture=mixture, windows=one_window(config, decoder.num_layers))


def read_gguf(file: GGUFFile, wanted: int | None) -> Decoder:
    decoder = read_gguf_decoder(file, wanted, "mixtral", interleaved=True)
    return replace(decoder, mixture=read_mixture(file, decoder.intermediate))


def _config_parts(decoder: Decoder, tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    assert decoder.mixture is not None
    experts = {"ffn_gate_exps": "w1", "ffn_up_exps": "w3", "ffn_down_exps": "w2"}
    return [
        *config_parts(),
        Part(("ffn_gate_inp",), "model.layers.{layer}.block_sparse_moe.gate", keep),
        *(
            Part((name,), _EXPERT + source, stack, decoder.mixture.experts)
            for name, source in experts.items()
        ),
    ]


MIXTRAL = Architecture("mixtral", (), ("mixtral",), read_gguf, read_config, gguf_parts, _config_parts)
