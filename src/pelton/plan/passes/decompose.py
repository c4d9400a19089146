"""Replace operations an executor lacks by their parts."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import KernelUnsupportedError
from ..builder import PlanBuilder, rebuild
from ..op import Op, Step, Value
from ..plan import Plan


def decompose(plan: Plan, supports: Callable[[type[Op]], bool]) -> Plan:
    """Every step whose operation `supports` refuses becomes its decomposition.

    Raises KernelUnsupportedError for a primitive that the executor lacks.
    """

    def rewrite(builder: PlanBuilder, step: Step, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        if supports(type(step.op)):
            return builder.apply(step.op, *inputs)
        parts = step.op.decompose(builder, inputs)
        if parts is None:
            raise KernelUnsupportedError("a primitive operation is missing", subject=step.op.kind)
        return parts

    return rebuild(plan, rewrite)
