"""The table of operations: one row each. Executors, tests and `pelton inspect --plan` read it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..op import Op
from .attention import Attend, Rope
from .elementwise import Activate, Activation, Add, Mul, Scale, SoftCap
from .experts import Experts, Route
from .linear import Embed, GatedLinear, Linear, LinearAdd, LinearGroup
from .norm import LayerNorm, RMSNorm
from .rows import ScatterRows, SelectRows, Tap

_ROWS: tuple[type[Op], ...] = (
    Embed,
    Linear,
    LinearAdd,
    LinearGroup,
    GatedLinear,
    RMSNorm,
    LayerNorm,
    Add,
    Mul,
    Scale,
    Activate,
    SoftCap,
    Rope,
    Attend,
    Route,
    Experts,
    SelectRows,
    ScatterRows,
    Tap,
)

OPS: Mapping[str, type[Op]] = MappingProxyType({row.kind: row for row in _ROWS})

__all__ = [
    "OPS",
    "Activate",
    "Activation",
    "Add",
    "Attend",
    "Embed",
    "Experts",
    "GatedLinear",
    "LayerNorm",
    "Linear",
    "LinearAdd",
    "LinearGroup",
    "Mul",
    "RMSNorm",
    "Rope",
    "Route",
    "Scale",
    "ScatterRows",
    "SelectRows",
    "SoftCap",
    "Tap",
]
