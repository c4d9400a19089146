"""Insert taps: hidden states after layers, attention mass per KV slot."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..builder import PlanBuilder, rebuild
from ..op import Step, Value
from ..ops import Attend
from ..plan import Plan


def tap_layer_outputs(plan: Plan, layers: Collection[int]) -> Plan:
    """Copy the hidden state after each named layer out as "layer.<n>", [T, width]."""
    last_step = {plan.steps[plan.after_layer(layer) - 1]: layer for layer in layers}

    def rewrite(builder: PlanBuilder, step: Step, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        outputs = builder.apply(step.op, *inputs)
        if step in last_step:
            builder.tap(outputs[0], f"layer.{last_step[step]}")
        return outputs

    return rebuild(plan, rewrite)


def tap_attention_mass(plan: Plan, layers: Collection[int]) -> Plan:
    """Copy out, as "mass.<n>" [S, slots], how much attention each KV slot got in each named layer."""

    def rewrite(builder: PlanBuilder, step: Step, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        op = step.op
        if isinstance(op, Attend) and step.layer in layers:
            op = replace(op, mass=f"mass.{step.layer}")
        return builder.apply(op, *inputs)

    return rebuild(plan, rewrite)
