"""Plans: flat lists of operations on named buffers, rows left symbolic."""

from __future__ import annotations

from .builder import LayerWeights, PlanBuilder, rebuild
from .op import Cost, Load, Op, Shape, Step, Value
from .plan import KVShape, Plan, load_of
from .show import show, show_step
from .verify import verify

__all__ = [
    "Cost",
    "KVShape",
    "LayerWeights",
    "Load",
    "Op",
    "Plan",
    "PlanBuilder",
    "Shape",
    "Step",
    "Value",
    "load_of",
    "rebuild",
    "show",
    "show_step",
    "verify",
]
