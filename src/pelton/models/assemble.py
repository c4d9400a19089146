"""From a source's tensors to the plan's weights: names, shapes, splits, stacks; nothing left over."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ModelFileError
from ..quant import FORMATS, Tensor
from ..quant.format import U8

Shapes = Sequence[tuple[int, ...]]
Convert = Callable[[str, Sequence[Tensor], Shapes], Sequence[Tensor]]
_PLAIN = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Part:
    """Some of the plan's weights and the tensors they are made of.

    `targets` and `source` are names without ".weight" or ".bias"; both are looked for. A {layer}
    in `source` repeats the part for each layer, with targets inside "blk.<layer>."; an {item}
    stands for the numbers below `items`, whose tensors are handed to `convert` together.
    """

    targets: tuple[str, ...]
    source: str
    convert: Convert
    items: int = 1


def assemble(
    subject: str,
    tensors: Mapping[str, Tensor],
    parts: Sequence[Part],
    shapes: Mapping[str, tuple[int, ...]],
    ignored: Sequence[str],
) -> dict[str, Tensor]:
    """Every weight in `shapes`, made as `parts` say.

    Raises ModelFileError for a tensor that is missing, has another shape, or is neither used nor
    matched by one of the `ignored` patterns.
    """
    wanted = dict(shapes)
    weights: dict[str, Tensor] = {}
    used: set[str] = set()
    for part, prefix, source, suffix in _instances(parts, shapes):
        ending = suffix if suffix == ".bias" else ""
        targets = [f"{prefix}{name}{ending}" for name in part.targets]
        if not all(name in wanted for name in targets):
            continue
        names = [source.replace("{item}", str(item)) + suffix for item in range(part.items)]
        used.update(names)
        found = [_take(subject, tensors, name) for name in names]
        made = part.convert(subject, found, [wanted.pop(name) for name in targets])
        weights.update(zip(targets, made, strict=True))
    assert not wanted, f"no part makes {sorted(wanted)}"
    for name in tensors:
        if name not in used and not any(re.fullmatch(pattern, name) for pattern in ignored):
            raise ModelFileError(
                "the architecture has no such tensor", subject=subject, field="tensor", value=name
            )
    return weights


def _instances(
    parts: Sequence[Part], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Part, str, str, str]]:
    layers = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blk."))
    for part in parts:
        for layer in range(layers if "{layer}" in part.source else 1):
            prefix = f"blk.{layer}." if "{layer}" in part.source else ""
            for suffix in (".weight", ".bias"):
                yield part, prefix, part.source.replace("{layer}", str(layer)), suffix


def _take(subject: str, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise ModelFileError("the tensor is missing", subject=subject, field="tensor", value=name)
    return tensor


def _require(subject: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tensor.shape != shape:
        raise ModelFileError(
            f"its shape should be {shape}", subject=subject, field=f"tensor {tensor.name}", value=tensor.shape
        )
    return tensor


def _elements(subject: str, tensor: Tensor) -> U8:
    """uint8 [*shape, bytes of one element] of a plain float tensor."""
    if tensor.format.name not in _PLAIN:
        raise ModelFileError(
            f"must be one of {', '.join(_PLAIN)} here",
            subject=subject,
            field=f"tensor {tensor.name} format",
            value=tensor.format.name,
        )
    return tensor.data.reshape(*tensor.shape, tensor.format.block_bytes)


def _like(tensor: Tensor, elements: U8) -> Tensor:
    data = np.ascontiguousarray(elements).reshape(-1)
    data.setflags(write=False)
    return Tensor(tensor.name, tensor.format, elements.shape[:-1], data)


def keep(subject: str, tensors: Sequence[Tensor], shapes: Shapes) -> Sequence[Tensor]:
    """The tensor as it is."""
    return [_require(subject, tensors[0], shapes[0])]


def add_one(subject: str, tensors: Sequence[Tensor], shapes: Shapes) -> Sequence[Tensor]:
    """weight + 1 in F32: Hugging Face's Gemma norms multiply by that; F32 so that no bit is lost."""
    tensor = _require(subject, tensors[0], shapes[0])
    values = tensor.dequantize() + np.float32(1)
    return [Tensor(tensor.name, FORMATS["F32"], tensor.shape, values.reshape(-1).view(np.uint8))]


def split_rows(subject: str, tensors: Sequence[Tensor], shapes: Shapes) -> Sequence[Tensor]:
    """Consecutive rows (or elements of a vector) to one weight each, as views."""
    total = sum(shape[0] for shape in shapes)
    tensor = _require(subject, tensors[0], (total, *shapes[0][1:]))
    parts, start = [], 0
    for shape in shapes:
        end = start + shape[0]
        part = tensor.rows(start, end) if len(shape) > 1 else _slice(subject, tensor, start, end)
        parts.append(part)
        start = end
    return parts


def _slice(subject: str, vector: Tensor, start: int, end: int) -> Tensor:
    part = _elements(subject, vector)[start:end]
    return Tensor(f"{vector.name}[{start}:{end}]", vector.format, (end - start,), part.reshape(-1))


def transpose(subject: str, tensors: Sequence[Tensor], shapes: Shapes) -> Sequence[Tensor]:
    """A [inputs, outputs] matrix turned into [outputs, inputs] and split by rows; vectors are split only."""
    if len(shapes[0]) > 1:
        shape = (shapes[0][1], sum(item[0] for item in shapes))
        tensor = _require(subject, tensors[0], shape)
        tensors = [_like(tensor, _elements(subject, tensor).transpose(1, 0, 2))]
    return split_rows(subject, tensors, shapes)


def split_heads(head_dim: int) -> Convert:
    """Rows ordered head by head as (query, key, value), to three weights: GPT-NeoX's query_key_value."""

    def convert(subject: str, tensors: Sequence[Tensor], shapes: Shapes) -> Sequence[Tensor]:
        total = sum(shape[0] for shape in shapes)
        tensor = _require(subject, tensors[0], (total, *shapes[0][1:]))
        elements = _elements(subject, tensor)
        by_head = elements.reshape(-1, 3, head_dim, *elements.shape[1:])
        ordered = np.swapaxes(by_head, 0, 1).reshape(elements.shape)
        return split_rows(subject, [_like(tensor, ordered)], shapes)

    return convert


def stack(subject: str, tensors: Sequence[Tensor], shapes: Shapes) -> Sequence[Tensor]:
    """Equal tensors one after another along the first axis: experts, norms of single heads."""
    (shape,) = shapes
    first = tensors[0]
    one = shape[1:] if len(shape) > 1 else (shape[0] // len(tensors),)
    for tensor in tensors:
        _require(subject, tensor, one)
        if tensor.format != first.format:
            raise ModelFileError(
                f"must be {first.format.name} like {first.name}",
                subject=subject,
                field=f"tensor {tensor.name} format",
                value=tensor.format.name,
            )
    data = np.concatenate([tensor.data for tensor in tensors])
    data.setflags(write=False)
    return [Tensor(first.name, first.format, shape, data)]


def flatten(subject: str, tensors: Sequence[Tensor], shapes: Shapes) -> Sequence[Tensor]:
    """[heads, head_dim] as one long vector."""
    (tensor,) = tensors
    (shape,) = shapes
    if len(tensor.shape) != 2 or math.prod(tensor.shape) != shape[0]:
        _require(subject, tensor, shape)
    return [Tensor(tensor.name, tensor.format, shape, tensor.data)]
