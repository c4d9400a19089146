"""Operations that treat every element by itself: add, mul, scale, activations, soft cap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import erf, pi, sqrt
from typing import ClassVar

import numpy as np

from ...types import I32
from ..op import F32, Cost, Load, Op, Run, Shape, WeightShapes, elementwise_cost, need


class Activation(str, Enum):
    """The non-linearities in use: x*sigmoid(x); GELU by tanh; GELU by erf; max(x, 0)."""

    SILU = "silu"
    GELU_TANH = "gelu_tanh"
    GELU_ERF = "gelu_erf"
    RELU = "relu"


_erf = np.frompyfunc(erf, 1, 1)


def activate(kind: Activation, x: F32) -> F32:
    """The activation in float32, element by element."""
    if kind is Activation.SILU:
        with np.errstate(over="ignore"):
            result = x / (np.float32(1) + np.exp(-x))
    elif kind is Activation.GELU_TANH:
        inner = np.float32(sqrt(2 / pi)) * (x + np.float32(0.044715) * x * x * x)
        result = np.float32(0.5) * x * (np.float32(1) + np.tanh(inner))
    elif kind is Activation.GELU_ERF:
        result = 0.5 * x * (1.0 + _erf(x / sqrt(2.0)).astype(np.float64))
    else:
        result = np.maximum(x, np.float32(0))
    return np.asarray(result, dtype=np.float32)


@dataclass(frozen=True)
class Binary(Op):
    """Two arrays of one shape, element by element."""

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 2 and inputs[0] == inputs[1], self, f"takes two like arrays, not {list(inputs)}")
        return (inputs[0],)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return elementwise_cost(load, outputs, passes=3)


@dataclass(frozen=True)
class Add(Binary):
    kind: ClassVar[str] = "add"

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        return (inputs[0] + inputs[1],)


@dataclass(frozen=True)
class Mul(Binary):
    kind: ClassVar[str] = "mul"

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        return (inputs[0] * inputs[1],)


@dataclass(frozen=True)
class Unary(Op):
    """One array to one of the same shape."""

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 1, self, "takes one input")
        return (inputs[0],)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return elementwise_cost(load, outputs, passes=2)


@dataclass(frozen=True)
class Scale(Unary):
    """x * factor."""

    kind: ClassVar[str] = "scale"
    factor: float

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        return (inputs[0] * np.float32(self.factor),)


@dataclass(frozen=True)
class Activate(Unary):
    kind: ClassVar[str] = "activate"
    activation: Activation

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        return (activate(self.activation, inputs[0]),)


@dataclass(frozen=True)
class SoftCap(Unary):
    """cap * tanh(x / cap): Gemma 2's bound on logits."""

    kind: ClassVar[str] = "soft_cap"
    cap: float

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        cap = np.float32(self.cap)
        return (cap * np.tanh(inputs[0] / cap),)
