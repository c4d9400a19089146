"""A plan: steps on values in the order they run, and where it may be cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from .op import Cost, Load, Shape, Step, WeightShapes
from .ops import Attend, Scale, SoftCap


@dataclass(frozen=True)
class KVShape:
    """What one token leaves in the KV store: `layers` pairs of [kv_heads, head_dim]."""

    layers: int
    kv_heads: int
    head_dim: int

    @property
    def elements_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Plan:
    """`logits` is the value that holds the result, [R, V]. Immutable; passes make new ones."""

    steps: tuple[Step, ...]
    shapes: tuple[Shape, ...]  # of value i
    logits: int
    weight_shapes: WeightShapes

    @cached_property
    def kv(self) -> KVShape:
        attends = [step.op for step in self.steps if isinstance(step.op, Attend)]
        layers = 1 + max(op.kv_layer for op in attends)
        return KVShape(layers, attends[0].num_kv_heads, attends[0].head_dim)

    @property
    def vocab_size(self) -> int:
        return self.shapes[self.logits].width

    @cached_property
    def num_layers(self) -> int:
        return 1 + max(step.layer for step in self.steps)

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights used, in order of first use."""
        return tuple(dict.fromkeys(name for step in self.steps for name in step.op.weights))

    @cached_property
    def head(self) -> tuple[int, int]:
        """The step that turns a row's last hidden state into scores, and the value that it reads."""
        writers = {step.outputs[0]: index for index, step in enumerate(self.steps) if step.outputs}
        index = writers[self.logits]
        while isinstance(self.steps[index].op, Scale | SoftCap):
            index = writers[self.steps[index].inputs[0]]
        return index, self.steps[index].inputs[0]

    def after_layer(self, layer: int) -> int:
        """Index of the first step after a layer: where a segment that stops there ends."""
        inside = [index for index, step in enumerate(self.steps) if step.layer == layer]
        if not inside:
            raise IndexError(f"the plan has layers 0..{self.num_layers - 1}, not {layer}")
        return inside[-1] + 1

    def live_at(self, step: int) -> tuple[int, ...]:
        """Values written before a step and read at or after it: what a cut there must carry over."""
        written = {value for s in self.steps[:step] for value in s.outputs}
        read = {value for s in self.steps[step:] for value in s.inputs} | {self.logits}
        return tuple(sorted(written & read))

    def cost(self, load: Load) -> Cost:
        """Bytes and multiply-adds of one forward pass under a load."""
        return sum(self.step_costs(load), Cost())

    def step_costs(self, load: Load) -> list[Cost]:
        return [
            step.op.cost(load, [self.shapes[i] for i in step.inputs], [self.shapes[o] for o in step.outputs])
            for step in self.steps
        ]


def load_of(
    rows: Mapping[str, int],
    attended: Mapping[str, int],
    context: int,
    kv_bytes: float,
    weight_bytes: Mapping[str, int],
) -> Load:
    """A Load whose weight sizes come from a mapping."""
    return Load(rows, attended, context, kv_bytes, weight_bytes.__getitem__)
