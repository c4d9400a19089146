"""PlanBuilder: how a model file writes its mathematics down. Shapes are checked at every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..errors import PlanError
from ..types import OUTPUT_ROWS
from .op import Op, Shape, Step, Value, WeightShapes
from .ops import (
    Activate,
    Activation,
    Add,
    Attend,
    Embed,
    Experts,
    LayerNorm,
    Linear,
    Mul,
    RMSNorm,
    Rope,
    Route,
    Scale,
    ScatterRows,
    SelectRows,
    SoftCap,
    Tap,
)
from .plan import Plan


class LayerWeights:
    """Names of one layer's weights: layer["attn_q"] is "blk.3.attn_q"; has() asks whether it exists."""

    def __init__(self, index: int, weights: WeightShapes) -> None:
        self.index = index
        self._weights = weights

    def __getitem__(self, name: str) -> str:
        return f"blk.{self.index}.{name}"

    def optional(self, name: str) -> str | None:
        """The full name if the model has that weight (a bias, say), else None."""
        full = self[name]
        return full if full in self._weights else None


class PlanBuilder:
    """Collects steps. Each method checks shapes, appends one step and returns its value."""

    def __init__(self, weight_shapes: WeightShapes) -> None:
        self._weights: Mapping[str, tuple[int, ...]] = weight_shapes
        self._steps: list[Step] = []
        self._shapes: list[Shape] = []
        self._layer = -1

    def layers(self, count: int) -> Iterator[LayerWeights]:
        """Iterate over the layers; steps made inside belong to the current one."""
        for index in range(count):
            self._layer = index
            yield LayerWeights(index, self._weights)
        self._layer = -1

    def set_layer(self, layer: int) -> None:
        """Steps that follow belong to this layer (passes copy layers over with it)."""
        self._layer = layer

    def has(self, weight: str) -> bool:
        return weight in self._weights

    def optional(self, weight: str) -> str | None:
        return weight if weight in self._weights else None

    def apply(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """Append any operation; PlanError names the step when its inputs do not fit."""
        try:
            shapes = op.shapes([value.shape for value in inputs], self._weights)
        except PlanError as error:
            where = f"step {len(self._steps)} (layer {self._layer}) {op}"
            raise PlanError(error.message, subject=where) from error
        outputs = tuple(Value(len(self._shapes) + offset, shape) for offset, shape in enumerate(shapes))
        self._shapes.extend(shapes)
        ids = tuple(value.id for value in inputs)
        self._steps.append(Step(op, ids, tuple(value.id for value in outputs), self._layer))
        return outputs

    def _one(self, op: Op, *inputs: Value) -> Value:
        (output,) = self.apply(op, *inputs)
        return output

    def embed(self, weight: str, scale: float = 1.0) -> Value:
        return self._one(Embed(weight, scale))

    def embed_positions(self, weight: str) -> Value:
        return self._one(Embed(weight, by_position=True))

    def linear(self, x: Value, weight: str, bias: str | None = None) -> Value:
        return self._one(Linear(weight, bias), x)

    def rms_norm(self, x: Value, weight: str | None, eps: float, group: int = 0) -> Value:
        return self._one(RMSNorm(weight, eps, group), x)

    def layer_norm(
        self, x: Value, weight: str | None, eps: float, bias: str | None = None, group: int = 0
    ) -> Value:
        return self._one(LayerNorm(weight, eps, group, bias), x)

    def add(self, a: Value, b: Value) -> Value:
        return self._one(Add(), a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self._one(Mul(), a, b)

    def scale(self, x: Value, factor: float) -> Value:
        return x if factor == 1.0 else self._one(Scale(factor), x)

    def activation(self, x: Value, kind: Activation) -> Value:
        return self._one(Activate(kind), x)

    def soft_cap(self, x: Value, cap: float) -> Value:
        return self._one(SoftCap(cap), x) if cap else x

    def rope(self, x: Value, rope: Rope) -> Value:
        return self._one(rope, x)

    def attend(self, q: Value, k: Value, v: Value, attend: Attend) -> Value:
        return self._one(attend, q, k, v)

    def route(self, scores: Value, top_k: int, normalize: bool) -> Value:
        return self._one(Route(top_k, normalize), scores)

    def experts(self, x: Value, routed: Value, experts: Experts) -> Value:
        return self._one(experts, x, routed)

    def select_rows(self, x: Value, row_set: str = OUTPUT_ROWS) -> Value:
        return self._one(SelectRows(row_set), x)

    def scatter_rows(self, whole: Value, part: Value, row_set: str) -> Value:
        return self._one(ScatterRows(row_set), whole, part)

    def tap(self, x: Value, name: str) -> None:
        self.apply(Tap(name), x)

    def logits(self, x: Value, weight: str, bias: str | None = None) -> Value:
        """Scores over the vocabulary for rows selected before."""
        return self.linear(x, weight, bias)

    def finish(self, logits: Value) -> Plan:
        """The finished plan; `logits` is its result."""
        return Plan(tuple(self._steps), tuple(self._shapes), logits.id, self._weights)


Rewrite = Callable[[PlanBuilder, Step, tuple[Value, ...]], tuple[Value, ...]]


def rebuild(plan: Plan, rewrite: Rewrite) -> Plan:
    """Copy a plan step by step; `rewrite` appends whatever replaces a step and returns its outputs."""
    builder = PlanBuilder(plan.weight_shapes)
    values: dict[int, Value] = {}
    for step in plan.steps:
        builder.set_layer(step.layer)
        inputs = tuple(values[i] for i in step.inputs)
        outputs = rewrite(builder, step, inputs)
        assert len(outputs) == len(step.outputs)
        values.update(zip(step.outputs, outputs, strict=True))
    return builder.finish(values[plan.logits])
