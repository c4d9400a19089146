"""Who reads which value of a plan, and where: what lowering may fold into its reader or not write at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from ..plan import Plan, Step
from ..plan.ops import Attend, Linear, LinearAdd, Rope
from ..plan.passes import Fused
from ..quant.tensor import Weight
from .native_weights import wants_blocks


class Readers:
    """Of a fused plan. `fine`: weights that read activations rounded more finely."""

    def __init__(self, fused: Fused, weights: Mapping[str, Weight], fine: Collection[str]) -> None:
        self._plan: Plan = fused.plan
        self._weights, self._fine = weights, fine
        self._segment = _segments(fused)
        self.sunk_ropes = self._sinkable_ropes()
        """By the value they write: ropes that only an attention of the same segment reads, which rotates
        while it loads."""

    def as_blocks(self, value: int) -> bool:
        """Whether some step multiplies a value, rounded in blocks of 32."""
        return any(self._multiplies(step, value) for step in self._plan.steps)

    def pairs(self, value: int, paired: Mapping[str, int]) -> int:
        """How many pairs of blocks those steps want to a unit; 0 for blocks."""
        steps = [step for step in self._plan.steps if self._multiplies(step, value)]
        return max((paired.get(name, 0) for step in steps for name in step.op.weights), default=0)

    def only_as_blocks(self, value: int) -> bool:
        """Of one that is read as blocks: nobody reads it as floats, in this segment or after a cut."""
        steps = self._plan.steps
        written = next(index for index, step in enumerate(steps) if value in step.outputs)
        readers = [index for index, step in enumerate(steps) if value in step.inputs]
        return value != self._plan.logits and all(
            self._multiplies(steps[index], value) and self._segment[index] == self._segment[written]
            for index in readers
        )

    def _multiplies(self, step: Step, value: int) -> bool:
        """Whether all a step does with a value is multiply it, rounded in blocks of 32."""
        return (
            isinstance(step.op, Linear | LinearAdd)
            and step.inputs[-1] == value
            and value not in step.inputs[:-1]
            and step.op.weight not in self._fine
            and wants_blocks(self._weights[step.op.weight])
        )

    def _sinkable_ropes(self) -> dict[int, Step]:
        count = Counter(value for step in self._plan.steps for value in step.inputs)
        ropes = {
            step.outputs[0]: (index, step)
            for index, step in enumerate(self._plan.steps)
            if isinstance(step.op, Rope) and count[step.outputs[0]] == 1
        }
        sunk = {}
        for index, step in enumerate(self._plan.steps):
            for value in step.inputs[:2] if isinstance(step.op, Attend) else ():
                place, rope = ropes.get(value, (-1, step))
                if place >= 0 and self._segment[place] == self._segment[index] and _same_heads(rope, step):
                    sunk[value] = rope
        return sunk


def _segments(fused: Fused) -> dict[int, int]:
    """Of each step the number of the stretch between two cuts in which it lies."""
    cuts, segment = sorted(fused.ends.values()), {}
    for number, (start, end) in enumerate(zip(cuts, [*cuts[1:], len(fused.plan.steps)], strict=True)):
        segment.update(dict.fromkeys(range(start, end), number))
    return segment


def _same_heads(rope: Step, attend: Step) -> bool:
    assert isinstance(rope.op, Rope)
    assert isinstance(attend.op, Attend)
    return rope.op.head_dim == attend.op.head_dim
