"""Operations that read a weight matrix: embed, linear, and the fused forms of linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...types import ALL_ROWS, I32
from ..op import F32, Cost, Load, Op, Run, Shape, Value, WeightShapes, need, need_vector
from .elementwise import Activation, activate

if TYPE_CHECKING:
    from ..builder import PlanBuilder


def _matrix(op: Op, weights: WeightShapes, name: str, width: int) -> int:
    """Rows of a [outputs, inputs] weight whose inputs must be `width`."""
    shape = weights.get(name)
    need(shape is not None, op, f"there is no weight {name!r}")
    assert shape is not None
    need(len(shape) == 2 and shape[1] == width, op, f"weight {name!r} is {shape}, the input is {width} wide")
    return shape[0]


def _matmul_cost(load: Load, rows: int, width: int, outputs: int, weight: str) -> Cost:
    moved = load.weight_bytes(weight) + 4.0 * rows * (width + outputs)
    return Cost(bytes=moved if rows else 0.0, multiply_adds=float(rows) * width * outputs)


@dataclass(frozen=True)
class Embed(Op):
    """Rows of a table picked by token id, or by position when `by_position`; times `scale`."""

    kind: ClassVar[str] = "embed"
    weight: str
    scale: float = 1.0
    by_position: bool = False

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.weight,)

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(not inputs, self, "takes no input")
        shape = weights.get(self.weight)
        need(shape is not None and len(shape) == 2, self, f"there is no table {self.weight!r}")
        assert shape is not None
        return (Shape(shape[1], ALL_ROWS),)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        ids = run.batch.positions if self.by_position else run.batch.tokens
        return (run.weight(self.weight)[ids[rows]] * np.float32(self.scale),)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return Cost(bytes=8.0 * load.rows[outputs[0].rows] * outputs[0].width)


@dataclass(frozen=True)
class Linear(Op):
    """x @ weight.T + bias; weight is [outputs, inputs]."""

    kind: ClassVar[str] = "linear"
    weight: str
    bias: str | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 1, self, "takes one input")
        outputs = _matrix(self, weights, self.weight, inputs[0].width)
        if self.bias is not None:
            need_vector(self, weights, self.bias, outputs)
        return (Shape(outputs, inputs[0].rows),)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        result = inputs[0] @ run.weight(self.weight).T
        return (result if self.bias is None else result + run.weight(self.bias),)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return _matmul_cost(load, load.rows[inputs[0].rows], inputs[0].width, outputs[0].width, self.weight)


@dataclass(frozen=True)
class LinearAdd(Op):
    """residual + x @ weight.T + bias: inputs (residual, x)."""

    kind: ClassVar[str] = "linear_add"
    weight: str
    bias: str | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 2, self, "takes a residual and an input")
        (product,) = Linear(self.weight, self.bias).shapes(inputs[1:], weights)
        need(product == inputs[0], self, f"the residual is {inputs[0]}, the product {product}")
        return (product,)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        (product,) = Linear(self.weight, self.bias).define(run, rows, inputs[1])
        return (inputs[0] + product,)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return Linear(self.weight, self.bias).cost(load, inputs[1:], outputs)

    def decompose(self, builder: PlanBuilder, inputs: Sequence[Value]) -> tuple[Value, ...]:
        return (builder.add(inputs[0], builder.linear(inputs[1], self.weight, self.bias)),)


@dataclass(frozen=True)
class LinearGroup(Op):
    """Several linears that share their input (q/k/v): one output per weight."""

    kind: ClassVar[str] = "linear_group"
    members: tuple[Linear, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(name for member in self.members for name in member.weights)

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        return tuple(member.shapes(inputs, weights)[0] for member in self.members)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        return tuple(member.define(run, rows, *inputs)[0] for member in self.members)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        costs = [member.cost(load, inputs, [out]) for member, out in zip(self.members, outputs, strict=True)]
        return sum(costs, Cost())

    def decompose(self, builder: PlanBuilder, inputs: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(builder.linear(inputs[0], member.weight, member.bias) for member in self.members)


@dataclass(frozen=True)
class GatedLinear(Op):
    """activation(x @ gate.T) * (x @ up.T), the two halves of a gated feed-forward block in one."""

    kind: ClassVar[str] = "gated_linear"
    gate: str
    up: str
    activation: Activation

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.gate, self.up)

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        (gate,) = Linear(self.gate).shapes(inputs, weights)
        (up,) = Linear(self.up).shapes(inputs, weights)
        need(gate == up, self, f"gate is {gate}, up is {up}")
        return (gate,)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        gate = inputs[0] @ run.weight(self.gate).T
        return (activate(self.activation, gate) * (inputs[0] @ run.weight(self.up).T),)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return Linear(self.gate).cost(load, inputs, outputs) + Linear(self.up).cost(load, inputs, outputs)

    def decompose(self, builder: PlanBuilder, inputs: Sequence[Value]) -> tuple[Value, ...]:
        gate = builder.activation(builder.linear(inputs[0], self.gate), self.activation)
        return (builder.mul(gate, builder.linear(inputs[0], self.up)),)
