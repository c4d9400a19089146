"""A plan as text, one line a step: what `pelton inspect MODEL --plan` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from ..types import ALL_ROWS
from .op import Op, Shape, Step
from .plan import Plan


def show_step(plan: Plan, step: Step) -> str:
    """`%7 [T,576] = linear(%6) weight=blk.0.attn_q`."""
    outputs = ", ".join(f"%{o} {_shape(plan.shapes[o])}" for o in step.outputs)
    inputs = ", ".join(f"%{i}" for i in step.inputs)
    left = f"{outputs} = " if outputs else ""
    return f"{left}{step.op.kind}({inputs}){_parameters(step.op)}"


def show(plan: Plan) -> Iterator[str]:
    """Lines of the whole plan with a heading per layer."""
    layer: int | None = None
    for index, step in enumerate(plan.steps):
        if step.layer != layer:
            layer = step.layer
            yield f"layer {layer}:" if layer >= 0 else "outside the layers:"
        yield f"  {index:4d}  {show_step(plan, step)}"
    yield f"logits: %{plan.logits} {_shape(plan.shapes[plan.logits])}"


def _shape(shape: Shape) -> str:
    return f"[{'T' if shape.rows == ALL_ROWS else shape.rows},{shape.width}]"


def _parameters(op: Op) -> str:
    shown = []
    for field in fields(op):
        value = getattr(op, field.name)
        if value == field.default:
            continue
        if isinstance(value, tuple) and len(value) > 4:
            value = f"({value[0]!r}, ... {len(value)} in all)"
        shown.append(f"{field.name}={value}")
    return " " + " ".join(shown) if shown else ""
