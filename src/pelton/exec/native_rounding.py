"""Which products of the native executor read activations that are rounded more finely."""

from __future__ import annotations

from ..plan import Plan
from ..plan.ops import (
    Add,
    Attend,
    LayerNorm,
    Linear,
    LinearAdd,
    LinearGroup,
    RMSNorm,
    Rope,
    Scale,
    SelectRows,
    SoftCap,
)


def fine_weights(plan: Plan) -> frozenset[str]:
    """Weights of linears whose activations get a scale per 16 inputs instead of 32.

    Those that lead into attention and to the logits, whatever is fused, cut or selected: they are a tenth
    of a prompt's work and made more than half of the divergence from the reference (SmolLM2-135M, 500
    positions: 0.93e-3 and 1.10e-3 of 3.46e-3 nats).
    """
    writer = {value: step for step in plan.steps for value in step.outputs}
    wanted = [value for step in plan.steps if isinstance(step.op, Attend) for value in step.inputs]
    wanted.append(plan.logits)
    seen: set[int] = set()
    names = set()
    while wanted:
        value = wanted.pop()
        step = writer[value]
        if value in seen:
            continue
        seen.add(value)
        if isinstance(step.op, Linear | LinearAdd):
            names.add(step.op.weight)
        elif isinstance(step.op, LinearGroup):
            names.update(member.weight for member in step.op.members)
        elif isinstance(step.op, Rope | RMSNorm | LayerNorm | Scale | SoftCap | Add | SelectRows):
            wanted += step.inputs
    return frozenset(names)
