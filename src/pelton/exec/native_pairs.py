"""Which weights the native executor holds in pairs of blocks; see csrc/core/weight_pairs.h."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from .._native import MOST_SEGMENT_PAIRS
from ..plan import Plan, Step
from ..plan.ops import GatedLinear, Linear, LinearAdd, LinearGroup, Mul
from ..quant.tensor import Weight
from .native_weights import layout_of

_GATED_PAIRS = 2
"""Of what is rounded as it is made, in pieces of 128."""


def paired_weights(plan: Plan, weights: Mapping[str, Weight]) -> Mapping[str, int]:
    """Weights of 4 bits that only products read, and how many pairs a segment of their inputs has.

    The product that makes the logits is not among them, as it is screened. Products of one input go together,
    as it is rounded for all of them at once: where one weight's format has no pairs, none of them is held so.
    """
    products = [step for step in plan.steps if _multiplies(plan, step)]
    others = [step for step in plan.steps if not _multiplies(plan, step)]
    plain = {id(weights[name]) for step in others for name in step.op.weights}
    readers: defaultdict[int, set[str]] = defaultdict(set)
    for step in products:
        readers[step.inputs[-1]].update(_matrices(step))
    gated = {value for step in plan.steps if isinstance(step.op, Mul | GatedLinear) for value in step.outputs}
    segments: dict[int, int] = {}  # of weights
    for value, names in readers.items():
        segment = _GATED_PAIRS if value in gated else _segment(plan.shapes[value].width)
        whole = all(layout_of(weights[name].format).has_pairs for name in names)
        for weight in (weights[name] for name in names):
            if not whole or segments.setdefault(id(weight), segment) != segment:
                plain.add(id(weight))
    groups = [{name: id(weights[name]) for name in names} for names in readers.values()]
    while grown := {own for ids in groups if plain & set(ids.values()) for own in ids.values()} - plain:
        plain |= grown  # a weight may stand in several groups
    return {name: segments[own] for ids in groups for name, own in ids.items() if own not in plain}


def _segment(inputs: int) -> int:
    """Pairs of as few segments of a row as there can be."""
    pairs = -(-inputs // 64)
    return -(-pairs // -(-pairs // MOST_SEGMENT_PAIRS))


def _multiplies(plan: Plan, step: Step) -> bool:
    is_product = isinstance(step.op, Linear | LinearAdd | LinearGroup | GatedLinear)
    return is_product and plan.logits not in step.outputs


def _matrices(step: Step) -> list[str]:
    op = step.op
    if isinstance(op, GatedLinear):
        return [op.gate, op.up]
    if isinstance(op, LinearGroup):
        return [member.weight for member in op.members]
    assert isinstance(op, Linear | LinearAdd)
    return [op.weight]
