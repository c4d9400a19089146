"""Mixture of experts: a router picks k feed-forward blocks for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...types import I32
from ..op import F32, Cost, Load, Op, Run, Shape, WeightShapes, need
from .elementwise import Activation, activate


@dataclass(frozen=True)
class Route(Op):
    """Scores of a router -> one weight per expert, zero for all but the row's `top_k`.

    Softmax over all experts; the k largest (lowest id on ties) stay; with `normalize` they are
    divided by their sum. Input [T, E], output [T, E].
    """

    kind: ClassVar[str] = "route"
    top_k: int
    normalize: bool

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 1, self, "takes the router's scores")
        need(
            0 < self.top_k <= inputs[0].width, self, f"cannot pick {self.top_k} of {inputs[0].width} experts"
        )
        return (inputs[0],)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        scores = np.exp(inputs[0] - inputs[0].max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        chosen = np.argsort(-scores, axis=1, kind="stable")[:, : self.top_k]
        result = np.zeros_like(scores)
        np.put_along_axis(result, chosen, np.take_along_axis(scores, chosen, axis=1), axis=1)
        if self.normalize:
            result /= result.sum(axis=1, keepdims=True)
        return (result,)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        elements = load.rows[inputs[0].rows] * inputs[0].width
        return Cost(8.0 * elements, 4.0 * elements)


@dataclass(frozen=True)
class Experts(Op):
    """sum over a row's experts, in order of expert id, of weight * down(act(gate(x)) * up(x)).

    Inputs (x [T, W], routed weights [T, E]). gate and up are [E, F, W], down is [E, W, F]; F is `hidden`.
    """

    kind: ClassVar[str] = "experts"
    gate: str
    up: str
    down: str
    activation: Activation
    top_k: int
    hidden: int

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.gate, self.up, self.down)

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 2 and inputs[0].rows == inputs[1].rows, self, "takes rows and their experts")
        width, experts = inputs[0].width, inputs[1].width
        gate, up, down = (weights.get(name, ()) for name in self.weights)
        need(len(gate) == 3 and gate == up, self, f"gate is {gate}, up is {up}")
        need(gate[0] == experts and gate[2] == width, self, f"gate {gate} does not fit {experts} x {width}")
        need(gate[1] == self.hidden, self, f"gate is {gate}, hidden is {self.hidden}")
        need(down == (gate[0], gate[2], gate[1]), self, f"down is {down}, gate is {gate}")
        return (inputs[0],)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        x, routed = inputs
        gate, up, down = (run.weight(name) for name in self.weights)
        result = np.zeros_like(x)
        for expert in range(routed.shape[1]):
            (chosen,) = np.nonzero(routed[:, expert])
            if len(chosen):
                part = x[chosen]
                hidden = activate(self.activation, part @ gate[expert].T) * (part @ up[expert].T)
                result[chosen] += routed[chosen, expert, None] * (hidden @ down[expert].T)
        return (result,)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        rows, experts = load.rows[inputs[0].rows], inputs[1].width
        touched = 1.0 - (1.0 - self.top_k / experts) ** rows
        stored = sum(load.weight_bytes(name) for name in self.weights)
        multiply_adds = 3.0 * rows * self.top_k * inputs[0].width * self.hidden
        return Cost(touched * stored + 8.0 * rows * inputs[0].width, multiply_adds)
