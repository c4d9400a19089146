"""The least time a forward pass can take: a plan's bytes and multiply-adds on a measured machine.

The roofline model (Williams, Waterman, Patterson 2009) for a whole pass: it cannot end before its weights
and keys have been read once from memory, nor before its multiply-adds have been done at the peak rate.
Activations are counted but bound nothing, since they may stay in a cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..plan import Load, Plan, Step, load_of
from ..plan.ops import Attend
from ..quant import Format
from ..types import ALL_ROWS, OUTPUT_ROWS
from .machine import Machine


@dataclass(frozen=True)
class StepCost:
    """One step's share of a pass. `streamed`: bytes of weights and KV; `local`: bytes of activations.

    `arithmetic` is the kind of multiply-add its kernel uses: "int8" for block formats, else "bf16", "f32".
    """

    step: Step
    streamed: float
    local: float
    multiply_adds: float
    arithmetic: str


@dataclass(frozen=True)
class Bound:
    """A pass's totals and the seconds it takes at least; `limit` is "memory" or "compute"."""

    streamed: float
    multiply_adds: float
    memory_seconds: float
    compute_seconds: float

    @property
    def seconds(self) -> float:
        return max(self.memory_seconds, self.compute_seconds)

    @property
    def limit(self) -> str:
        return "memory" if self.memory_seconds >= self.compute_seconds else "compute"


def pass_load(
    *, rows: int, depth: int, sequences: int, kv_bytes: float, weight_bytes: Mapping[str, int]
) -> Load:
    """The load of one pass in which each sequence has `depth` positions computed and runs `rows` more.

    One row a sequence is a decode step, many are a prompt; the last row of each gives logits.
    `kv_bytes`: bytes of one stored key or value element.
    """
    if rows < 1 or depth < 0 or sequences < 1:
        raise ValueError(f"no pass has {rows} rows for {sequences} sequences at depth {depth}")
    row_sets = {ALL_ROWS: rows * sequences, OUTPUT_ROWS: sequences}
    context = (depth + rows) * sequences
    attended = {ALL_ROWS: sum(range(depth + 1, depth + rows + 1)) * sequences, OUTPUT_ROWS: context}
    return load_of(row_sets, attended, context, kv_bytes, weight_bytes)


def step_costs(plan: Plan, load: Load, formats: Mapping[str, Format]) -> list[StepCost]:
    """Every step's cost; `formats` of all the plan's weights say which arithmetic a step uses."""
    # A cost is linear in the sizes of what is stored: with them at zero only the activations are left.
    unstored = replace(load, kv_bytes=0.0, weight_bytes=lambda name: 0)
    both = zip(plan.steps, plan.step_costs(load), plan.step_costs(unstored), strict=True)
    return [
        StepCost(
            step, cost.bytes - rest.bytes, rest.bytes, cost.multiply_adds, _arithmetic(step, load, formats)
        )
        for step, cost, rest in both
    ]


def _arithmetic(step: Step, load: Load, formats: Mapping[str, Format]) -> str:
    if isinstance(step.op, Attend):  # no faster than by the format that its keys' size allows
        return "int8" if load.kv_bytes < 2 else "bf16" if load.kv_bytes < 4 else "f32"
    if not step.op.weights:
        return "f32"
    used = formats[step.op.weights[0]]
    if used.panel is not None:
        return "int8"
    return "bf16" if used.name == "BF16" else "f32"


def bound_of(costs: Sequence[StepCost], machine: Machine) -> Bound:
    """The least seconds for steps that run one after another in one pass."""
    streamed = sum(cost.streamed for cost in costs)
    return Bound(
        streamed=streamed,
        multiply_adds=sum(cost.multiply_adds for cost in costs),
        memory_seconds=streamed / machine.read_bandwidth(streamed) if streamed else 0.0,
        compute_seconds=sum(cost.multiply_adds / machine.peak(cost.arithmetic) for cost in costs),
    )
