"""Fuse linears with what stands next to them: q/k/v, gate/up/activation, and the residual add."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..builder import PlanBuilder
from ..op import Op, Step, Value
from ..ops import Activate, Add, GatedLinear, Linear, LinearAdd, LinearGroup, Mul
from ..plan import Plan


@dataclass(frozen=True)
class Fused:
    """A fused plan and where the original's values and cuts went.

    `values` maps the original's values to the new ones, where they still exist; `ends` maps a cut
    (a step number of the original) to the number of new steps before it.
    """

    plan: Plan
    values: Mapping[int, int]
    ends: Mapping[int, int]


def fuse(plan: Plan) -> Plan:
    """The same numbers in fewer steps: every fused operation is defined as the parts it replaces."""
    return fuse_between(plan, ()).plan


def fuse_between(plan: Plan, cuts: Collection[int]) -> Fused:
    """Like `fuse`, but nothing is fused across a cut: what is live there stays a value of its own."""
    return _Fuser(plan, cuts).run()


class _Fuser:
    """One walk over a plan: decides what merges by who reads each value, then rebuilds."""

    def __init__(self, plan: Plan, cuts: Collection[int]) -> None:
        self._plan = plan
        self._cuts = sorted({*cuts, len(plan.steps)})
        self._readers = Counter(value for step in plan.steps for value in step.inputs)
        self._readers[plan.logits] += 1
        for cut in self._cuts:
            self._readers.update(plan.live_at(cut))
        self._writer = {value: step for step in plan.steps for value in step.outputs}
        self._absorbed: set[int] = set()  # values that no longer get a step of their own
        self._fused: dict[int, tuple[Op, tuple[int, ...]]] = {}  # output value -> operation, its inputs
        self._groups: dict[int, tuple[int, ...]] = {}  # first output -> all outputs of a group

    def run(self) -> Fused:
        for step in self._plan.steps:
            self._gate(step)
        for step in self._plan.steps:
            self._residual(step)
        self._group_linears()
        return self._rebuild()

    def _only_reader(self, value: int) -> Step | None:
        """The step that wrote a value nobody else reads."""
        return self._writer.get(value) if self._readers[value] == 1 else None

    def _gate(self, step: Step) -> None:
        if not isinstance(step.op, Mul):
            return
        activated, up = (self._only_reader(value) for value in step.inputs)
        if activated is None or up is None or not isinstance(activated.op, Activate):
            return
        gate = self._only_reader(activated.inputs[0])
        if gate is None or not (isinstance(gate.op, Linear) and isinstance(up.op, Linear)):
            return
        if gate.op.bias or up.op.bias or gate.inputs != up.inputs:
            return
        op = GatedLinear(gate.op.weight, up.op.weight, activated.op.activation)
        self._fused[step.outputs[0]] = (op, gate.inputs)
        self._absorbed |= {*gate.outputs, *activated.outputs, *up.outputs}

    def _residual(self, step: Step) -> None:
        if not isinstance(step.op, Add):
            return
        for residual, product in (step.inputs, step.inputs[::-1]):
            linear = self._only_reader(product)
            if linear is None or not isinstance(linear.op, Linear) or residual == product:
                continue
            op = LinearAdd(linear.op.weight, linear.op.bias)
            self._fused[step.outputs[0]] = (op, (residual, *linear.inputs))
            self._absorbed |= {*linear.outputs}
            return

    def _group_linears(self) -> None:
        by_input: dict[tuple[int, ...], list[Step]] = {}
        for index, step in enumerate(self._plan.steps):
            if isinstance(step.op, Linear) and step.outputs[0] not in self._absorbed:
                by_input.setdefault((bisect_right(self._cuts, index), *step.inputs), []).append(step)
        for steps in by_input.values():
            if len(steps) > 1:
                first, *rest = (step.outputs[0] for step in steps)
                members = tuple(step.op for step in steps if isinstance(step.op, Linear))
                self._fused[first] = (LinearGroup(members), steps[0].inputs)
                self._groups[first] = (first, *rest)
                self._absorbed |= {*rest}

    def _rebuild(self) -> Fused:
        builder = PlanBuilder(self._plan.weight_shapes)
        values: dict[int, Value] = {}
        ends: dict[int, int] = {}
        count = 0
        for index, step in enumerate(self._plan.steps):
            ends[index] = count
            if step.outputs and step.outputs[0] in self._absorbed:
                continue
            builder.set_layer(step.layer)
            key = step.outputs[0] if step.outputs else -1
            op, inputs = self._fused.get(key, (step.op, step.inputs))
            outputs = builder.apply(op, *(values[i] for i in inputs))
            values.update(zip(self._groups.get(key, step.outputs), outputs, strict=True))
            count += 1
        ends[len(self._plan.steps)] = count
        plan = builder.finish(values[self._plan.logits])
        return Fused(
            plan, {old: new.id for old, new in values.items()}, {cut: ends[cut] for cut in self._cuts}
        )
