"""pelton: the most right answers out of a fixed amount of compute.

The names below load their modules when first used, so `import pelton` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .async_llm import AsyncLLM as AsyncLLM
    from .config import SamplingParams as SamplingParams
    from .errors import PeltonError as PeltonError
    from .llm import LLM as LLM
    from .outputs import CompletionOutput as CompletionOutput
    from .outputs import RequestOutput as RequestOutput
    from .outputs import StreamOutput as StreamOutput
    from .structured import StructuredOutputs as StructuredOutputs

__version__ = "0.1.0"

_HOMES = {
    "LLM": "llm",
    "AsyncLLM": "async_llm",
    "SamplingParams": "config",
    "PeltonError": "errors",
    "CompletionOutput": "outputs",
    "RequestOutput": "outputs",
    "StreamOutput": "outputs",
    "StructuredOutputs": "structured",
}
__all__ = [
    "LLM",
    "AsyncLLM",
    "CompletionOutput",
    "PeltonError",
    "RequestOutput",
    "SamplingParams",
    "StreamOutput",
    "StructuredOutputs",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value
