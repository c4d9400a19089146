"""Number formats: how weights are held in blocks of bytes, and what those bytes mean.

Layouts are those of ggml (ggml-common.h), so files of the GGUF world are used as they come.
An encoder's error bound holds where the block's largest magnitude lies within 2^-8 .. 2^10;
below that half-precision scales lose bits, above it they may not fit (ValueError).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..errors import ModelFileError
from .floats import BFLOAT16, FLOAT16, FLOAT32
from .format import Format, Panel
from .iq4 import IQ4_NL, IQ4_XS
from .q2_k import Q2_K
from .q3_k import Q3_K
from .q4_k_q5_k import Q4_K, Q5_K
from .q4_q5 import Q4_0, Q4_1, Q5_0, Q5_1
from .q6_k import Q6_K
from .q8_0 import Q8_0
from .tensor import Tensor, Weight

__all__ = ["FORMATS", "Format", "Panel", "Tensor", "Weight", "format_named"]

_ALL = (
    *(FLOAT32, FLOAT16, BFLOAT16, Q8_0),
    *(Q4_0, Q4_1, Q5_0, Q5_1),
    *(Q2_K, Q3_K, Q4_K, Q5_K, Q6_K),
    *(IQ4_NL, IQ4_XS),
)

FORMATS: Mapping[str, Format] = MappingProxyType({item.name: item for item in _ALL})


def format_named(name: str) -> Format:
    """The format of that name, in upper case as GGUF writes it. Raises ModelFileError for any other."""
    found = FORMATS.get(name)
    if found is None:
        known = ", ".join(FORMATS)
        raise ModelFileError(f"not a number format pelton implements ({known})", field="format", value=name)
    return found
