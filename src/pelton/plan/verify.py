"""Checks a plan as data before anything runs it."""

from __future__ import annotations

from ..errors import PlanError
from ..types import ALL_ROWS, OUTPUT_ROWS
from .plan import Plan
from .show import show_step


def verify(plan: Plan) -> None:
    """Raise PlanError, with the step's number and line, if the plan is not well formed.

    Every value is written once, before it is read; shapes follow each operation's rule; KV layers
    are written once each and alike; the result covers the output rows.
    """
    written: set[int] = set()
    kv_layers: set[int] = set()
    for index, step in enumerate(plan.steps):
        where = f"step {index}: {show_step(plan, step)}"
        for value in step.inputs:
            if value not in written:
                raise PlanError(f"reads %{value} before it is written", subject=where)
        for value in step.outputs:
            if value in written or not 0 <= value < len(plan.shapes):
                raise PlanError(f"%{value} is written twice or unknown", subject=where)
            written.add(value)
        shapes = step.op.shapes([plan.shapes[i] for i in step.inputs], plan.weight_shapes)
        declared = tuple(plan.shapes[o] for o in step.outputs)
        if shapes != declared:
            raise PlanError(f"declares {declared}, its rule gives {shapes}", subject=where)
        _verify_attend(plan, index, kv_layers, where)
    if plan.logits not in written:
        raise PlanError("the result is never written", subject="plan")
    if plan.shapes[plan.logits].rows not in (ALL_ROWS, OUTPUT_ROWS):
        raise PlanError("the result must cover all or the output rows", subject="plan")


def _verify_attend(plan: Plan, index: int, kv_layers: set[int], where: str) -> None:
    from .ops import Attend

    op = plan.steps[index].op
    if not isinstance(op, Attend):
        return
    if op.kv_layer in kv_layers:
        raise PlanError(f"KV layer {op.kv_layer} is written twice", subject=where)
    kv_layers.add(op.kv_layer)
    if (op.num_kv_heads, op.head_dim) != (plan.kv.kv_heads, plan.kv.head_dim):
        raise PlanError("all layers must store keys of one shape", subject=where)
