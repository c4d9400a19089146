"""Plan -> native program: fuses, decides which linears read 8-bit blocks, numbers values and row sets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from .._native import Program, RopeSpec
from ..errors import KernelUnsupportedError
from ..plan import Plan, Step
from ..plan.ops import (
    Activate,
    Add,
    Attend,
    Embed,
    Experts,
    GatedLinear,
    LayerNorm,
    Linear,
    LinearAdd,
    LinearGroup,
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
from ..plan.passes import Fused, fuse_between
from ..types import ALL_ROWS
from .native_compiled import CompiledPlan, TapSource, Target
from .native_readers import Readers
from .native_rounding import fine_weights
from .native_weights import wants_blocks

_BLOCK_FLOATS, _PAIR_FLOATS = 12, 22
"""A block of 32 rounded activations takes 48 bytes, a pair of them for weights in pairs 88: see
ActivationBlock and ActivationPair in csrc/kernels/linear.h."""


def layer_ends(plan: Plan) -> set[int]:
    """Cuts that cost nothing: nothing is ever fused across the end of a layer."""
    steps = plan.steps
    return {0, len(steps)} | {i for i in range(1, len(steps)) if steps[i].layer != steps[i - 1].layer}


def compile_plan(plan: Plan, target: Target, extra_cuts: Collection[int] = ()) -> CompiledPlan:
    """A program that can stop at the ends of layers and at `extra_cuts`."""
    return _Lowering(plan, fuse_between(plan, layer_ends(plan) | set(extra_cuts)), target).run()


class _Lowering:
    """One walk over the fused plan; each operation has a method that appends its instructions."""

    def __init__(self, plan: Plan, fused: Fused, target: Target) -> None:
        self._original, self._fused, self._plan, self._target = plan, fused, fused.plan, target
        self._program = Program(target.pool, target.workspace, target.isa)
        self._weights = target.packed
        sets = dict.fromkeys(shape.rows for shape in self._plan.shapes if shape.rows != ALL_ROWS)
        self._row_sets = {ALL_ROWS: 0} | {name: number for number, name in enumerate(sets, start=1)}
        self._ids = [self._value(shape.width, shape.rows) for shape in self._plan.shapes]
        # (value, fine, pairs to a unit) -> its rounded form, within a segment of the plan
        self._blocks: dict[tuple[int, bool, int], int] = {}
        self._fine = fine_weights(plan)
        self._readers = Readers(fused, target.weights, self._fine)
        self._layers: list[int] = []
        self._keep = [self._ids[self._plan.logits]]
        self._has_head = False
        self._taps: list[TapSource] = []

    def run(self) -> CompiledPlan:
        cuts = {end: cut for cut, end in sorted(self._fused.ends.items())}
        ends = {0: 0}
        for index, step in enumerate(self._plan.steps):
            if index in cuts:
                ends[cuts[index]] = self._program.num_instructions
                self._blocks.clear()
            self._lower(step)
            self._layers += [step.layer] * (self._program.num_instructions - len(self._layers))
        for cut, end in self._fused.ends.items():
            if end == len(self._plan.steps):
                ends[cut] = self._program.num_instructions
        self._find_taps()
        self._program.finish(self._keep)
        values = {old: self._ids[new] for old, new in self._fused.values.items()}
        names = tuple(self._row_sets)[1:]
        taps, layers = tuple(self._taps), tuple(self._layers)
        return CompiledPlan(self._program, ends, values, taps, names, layers, self._has_head)

    def _value(self, width: int, rows: str) -> int:
        return self._program.value(width, self._row_sets[rows])

    def _lower(self, step: Step) -> None:
        lower = _LOWERINGS.get(type(step.op))
        if lower is None:
            raise KernelUnsupportedError("the native executor lacks this operation", subject=step.op.kind)
        lower(self, step)

    def _io(self, step: Step) -> tuple[int, ...]:
        return tuple(self._ids[i] for i in (*step.inputs, *step.outputs))

    def _find_taps(self) -> None:
        """Tapped values stay readable to the end of a pass, so a tap needs no instruction."""
        number = 0
        for index, step in enumerate(self._original.steps):
            if isinstance(step.op, Tap):
                value = self._ids[self._fused.values[step.inputs[0]]]
                self._keep.append(value)
                self._taps.append(TapSource(index, step.op.name, value=value))
            elif isinstance(step.op, Attend) and step.op.mass is not None:
                self._taps.append(TapSource(index, step.op.mass, mass=number))
                number += 1

    def _rounded(self, value: int, pairs: int) -> int:
        """A place for the rounded form of a value."""
        shape = self._plan.shapes[value]
        floats = -(-shape.width // 64) * _PAIR_FLOATS if pairs else shape.width // 32 * _BLOCK_FLOATS
        return self._value(floats, shape.rows)

    def _input(self, value: int, *weights: str, fine: bool = False) -> tuple[int, int]:
        """The float and the rounded form of a linear's input, -1 for one that no weight reads."""
        pairs = self._weights.paired.get(weights[0], 0)  # and of all of them: see paired_weights
        key = (value, fine, pairs)
        formats = [wants_blocks(self._target.weights[name]) for name in weights]
        if any(formats) and key not in self._blocks:
            self._blocks[key] = self._rounded(value, pairs)
            self._program.quantize(self._ids[value], self._blocks[key], fine, pairs)
        return (-1 if all(formats) else self._ids[value]), (self._blocks[key] if any(formats) else -1)

    def embed(self, step: Step) -> None:
        op = step.op
        assert isinstance(op, Embed)
        (y,) = self._io(step)
        self._program.embed(y, self._weights.matrix(op.weight), op.scale, op.by_position)

    def linear(self, step: Step) -> None:
        op = step.op
        assert isinstance(op, Linear | LinearAdd | LinearGroup)
        if self._screened(step):
            return
        members: tuple[Linear | LinearAdd, ...] = op.members if isinstance(op, LinearGroup) else (op,)
        residual = self._ids[step.inputs[0]] if isinstance(op, LinearAdd) else -1
        for fine in (True, False):
            chosen = [
                (member, self._ids[output])
                for member, output in zip(members, step.outputs, strict=True)
                if (member.weight in self._fine) == fine
            ]
            if chosen:
                x, blocks = self._input(step.inputs[-1], *(member.weight for member, _ in chosen), fine=fine)
                parts = [
                    (self._weights.matrix(member.weight), self._weights.vector(member.bias), output)
                    for member, output in chosen
                ]
                self._program.linear(x, blocks, parts, residual, fine)

    def _screened(self, step: Step) -> bool:
        """Whether this is the head, and its coarse copy worth having: then it is lowered here."""
        op = step.op
        if not isinstance(op, Linear) or op.bias is not None or step.outputs != (self._plan.logits,):
            return False
        weight = self._weights.matrix(op.weight)
        screen = self._target.screening.of(weight)
        if screen is None:
            return False
        fine = op.weight in self._fine
        x, blocks = self._input(step.inputs[0], op.weight, fine=fine)
        self._has_head = True
        self._program.screened_linear(x, blocks, weight, self._ids[step.outputs[0]], fine, screen)
        return True

    def gated_linear(self, step: Step) -> None:
        op = step.op
        assert isinstance(op, GatedLinear)
        (output,) = step.outputs
        x, blocks = self._input(step.inputs[0], op.gate, op.up)
        quantized, floats = -1, self._ids[output]
        pairs = self._readers.pairs(output, self._weights.paired)
        if self._readers.as_blocks(output):
            quantized = self._blocks[output, False, pairs] = self._rounded(output, pairs)
            floats = -1 if self._readers.only_as_blocks(output) else floats
        gate, up = self._weights.matrix(op.gate), self._weights.matrix(op.up)
        self._program.gated_linear(x, blocks, gate, up, op.activation.value, floats, quantized, pairs)

    def norm(self, step: Step) -> None:
        op = step.op
        assert isinstance(op, RMSNorm | LayerNorm)
        weight, bias = self._weights.vector(op.weight), self._weights.vector(op.bias)
        group = op.group or self._plan.shapes[step.inputs[0]].width
        x, y = self._io(step)
        self._program.norm(x, y, weight, bias, group, op.eps, isinstance(op, LayerNorm))

    def elementwise(self, step: Step) -> None:
        op, ids = step.op, self._io(step)
        a, b, y = ids if len(ids) == 3 else (ids[0], -1, ids[1])
        number = op.factor if isinstance(op, Scale) else op.cap if isinstance(op, SoftCap) else 0.0
        activation = op.activation.value if isinstance(op, Activate) else "silu"
        self._program.elementwise(op.kind, a, b, y, number, activation)

    def rope(self, step: Step) -> None:
        if step.outputs[0] not in self._readers.sunk_ropes:
            assert isinstance(step.op, Rope)
            x, y = self._io(step)
            self._program.rope(x, y, _rope_spec(step.op))

    def attend(self, step: Step) -> None:
        op = step.op
        assert isinstance(op, Attend)
        (q, query_rope), (k, key_rope) = (self._rotated(value) for value in step.inputs[:2])
        v, y = self._io(step)[2:]
        rows = self._row_sets[self._plan.shapes[step.inputs[0]].rows]
        self._program.attend(
            *(q, k, v, y),
            kv_layer=op.kv_layer,
            heads=op.num_heads,
            kv_heads=op.num_kv_heads,
            head_dim=op.head_dim,
            row_set=rows,
            scale=op.scale,
            window=op.window,
            cap=op.cap,
            query_rope=query_rope,
            key_rope=key_rope,
            wants_mass=op.mass is not None,
        )

    def _rotated(self, value: int) -> tuple[int, RopeSpec | None]:
        """Where attention reads a query or key, and how it has yet to turn it."""
        rope = self._readers.sunk_ropes.get(value)
        if rope is None:
            return self._ids[value], None
        assert isinstance(rope.op, Rope)
        return self._ids[rope.inputs[0]], _rope_spec(rope.op)

    def route(self, step: Step) -> None:
        assert isinstance(step.op, Route)
        x, y = self._io(step)
        self._program.route(x, y, step.op.top_k, step.op.normalize)

    def experts(self, step: Step) -> None:
        op = step.op
        assert isinstance(op, Experts)
        x, routed = step.inputs
        shape = self._plan.shapes[x]
        hidden = self._plan.weight_shapes[op.gate][1]
        floats, blocks = self._input(x, op.gate, op.up)
        down_blocks = wants_blocks(self._target.weights[op.down])

        def buffer(width: int, needed: bool = True) -> int:
            return self._value(width * op.top_k, shape.rows) if needed else -1

        buffers = [
            buffer(shape.width, floats >= 0),
            buffer(shape.width // 32 * _BLOCK_FLOATS, blocks >= 0),
            buffer(hidden, not down_blocks),
            buffer(hidden // 32 * _BLOCK_FLOATS, down_blocks),
            buffer(shape.width),
        ]
        gate, up, down = (self._weights.matrices(name) for name in op.weights)
        output = self._ids[step.outputs[0]]
        self._program.experts(
            floats, blocks, self._ids[routed], output, gate, up, down, buffers, op.activation.value, op.top_k
        )

    def select(self, step: Step) -> None:
        x, y = self._io(step)
        self._program.select(x, y)

    def scatter(self, step: Step) -> None:
        whole, part, y = self._io(step)
        self._program.scatter(whole, part, y)

    def nothing(self, step: Step) -> None:
        """Taps: see _find_taps."""


def _rope_spec(op: Rope) -> RopeSpec:
    return RopeSpec(op.head_dim, op.frequencies, op.magnitude, op.interleaved)


_LOWERINGS: Mapping[type, Callable[[_Lowering, Step], None]] = {
    Embed: _Lowering.embed,
    Linear: _Lowering.linear,
    LinearAdd: _Lowering.linear,
    LinearGroup: _Lowering.linear,
    GatedLinear: _Lowering.gated_linear,
    RMSNorm: _Lowering.norm,
    LayerNorm: _Lowering.norm,
    Add: _Lowering.elementwise,
    Mul: _Lowering.elementwise,
    Scale: _Lowering.elementwise,
    SoftCap: _Lowering.elementwise,
    Activate: _Lowering.elementwise,
    Rope: _Lowering.rope,
    Attend: _Lowering.attend,
    Route: _Lowering.route,
    Experts: _Lowering.experts,
    SelectRows: _Lowering.select,
    ScatterRows: _Lowering.scatter,
    Tap: _Lowering.nothing,
}
