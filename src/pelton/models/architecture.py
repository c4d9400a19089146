"""What the families of models have in common: one description of a decoder, one row per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..errors import ModelFileError
from ..plan.ops import Activation, Rope
from ..quant import Tensor
from ..weights.config_file import ConfigFile
from ..weights.gguf import GGUFFile
from .assemble import Part


class NormKind(Enum):
    """Root mean square or mean and variance."""

    RMS = "rms_norm"
    LAYER = "layer_norm"


class QKNorm(Enum):
    """How queries and keys are normalized before they are rotated.

    HEAD: each head by itself, one weight [D] for all (Qwen 3, Gemma 3). HEADS: each head by itself
    with weights of its own [H*D] (StableLM 2). ROW: all heads together [H*D] (OLMo 2).
    """

    NONE = "none"
    HEAD = "head"
    HEADS = "heads"
    ROW = "row"


@dataclass(frozen=True)
class Mixture:
    """A mixture-of-experts feed-forward block; `width` is one expert's hidden size."""

    experts: int
    top_k: int
    width: int
    normalize: bool

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.experts:
            raise ModelFileError(
                f"must be from 1 to the {self.experts} experts", field="experts per token", value=self.top_k
            )


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder-only transformer, whichever family it is of. The defaults are Llama's.

    `windows` has one entry a layer: 0 sees all positions, n the last n. Layers with a window turn by
    `local_rope` where there is one. `pre_norm` normalizes what enters attention and feed-forward
    block, `post_norm` what leaves them. `parallel` feeds both blocks from the same hidden state;
    with `shared_norm` even from the same normalized one. `gated` is act(gate(x)) * up(x), otherwise
    act(up(x)). `context_length` is what the model was trained for. Raises ModelFileError.
    """

    architecture: str
    vocab_size: int
    context_length: int
    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate: int
    eps: float
    windows: tuple[int, ...]
    rope: Rope | None
    local_rope: Rope | None = None
    tied: bool = False
    norm: NormKind = NormKind.RMS
    norm_bias: bool = False
    pre_norm: bool = True
    post_norm: bool = False
    qk_norm: QKNorm = QKNorm.NONE
    parallel: bool = False
    shared_norm: bool = False
    activation: Activation = Activation.SILU
    gated: bool = True
    mixture: Mixture | None = None
    learned_positions: bool = False
    qkv_bias: bool = False
    attn_output_bias: bool = False
    ffn_bias: bool = False
    attention_scale: float
    attention_cap: float = 0.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_cap: float = 0.0

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ModelFileError(
                f"must divide the {self.num_heads} query heads", field="key heads", value=self.num_kv_heads
            )
        if len(self.windows) != self.num_layers or min(self.windows) < 0:
            raise ModelFileError(
                f"must be one window for each of {self.num_layers} layers",
                field="windows",
                value=self.windows,
            )
        if not 0.0 < self.eps < 1.0:
            raise ModelFileError("must lie between 0 and 1", field="norm epsilon", value=self.eps)
        for field in ("attention_cap", "logit_cap"):
            if getattr(self, field) < 0.0:
                raise ModelFileError("must not be negative", field=field, value=getattr(self, field))


@dataclass(frozen=True)
class ModelShape:
    """What the rest of the engine may know of a model. `context_length` is the trained one."""

    architecture: str
    vocab_size: int
    context_length: int
    num_layers: int
    hidden: int
    num_kv_heads: int
    head_dim: int
    parameters: int


Parts = Callable[[Decoder, Mapping[str, Tensor]], Sequence[Part]]


@dataclass(frozen=True)
class Architecture:
    """A family of models: its names in both worlds, how its settings are read, where its weights are.

    Readers take the file and the context length wanted (None: the trained one). `config_parts` and
    `gguf_parts` say which of the source's tensors make which of the plan's weights.
    """

    name: str
    gguf_names: tuple[str, ...]
    config_names: tuple[str, ...]
    read_gguf: Callable[[GGUFFile, int | None], Decoder]
    read_config: Callable[[ConfigFile, int | None], Decoder]
    gguf_parts: Parts
    config_parts: Parts
