"""The families of models, one file each; a new one is a file and a row here."""

from __future__ import annotations

from .architecture import Architecture, Decoder, ModelShape
from .gemma import GEMMA2, GEMMA3
from .gpt2 import GPT2
from .gpt_neox import GPT_NEOX
from .granite import GRANITE
from .llama import LLAMA, MISTRAL
from .mixtral import MIXTRAL
from .olmo2 import OLMO2
from .phi3 import PHI3
from .qwen2 import QWEN2
from .qwen3 import QWEN3, QWEN3_MOE
from .stablelm import STABLELM

ARCHITECTURES: tuple[Architecture, ...] = (
    *(LLAMA, MISTRAL, MIXTRAL, QWEN2, QWEN3, QWEN3_MOE, GEMMA2, GEMMA3),
    *(PHI3, GPT2, GPT_NEOX, STABLELM, OLMO2, GRANITE),
)

__all__ = ["ARCHITECTURES", "Architecture", "Decoder", "ModelShape"]
