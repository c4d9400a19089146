"""What the tests of native programs share: small weights, a batch of one span, arrays of keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pelton import _native

F32 = NDArray[np.float32]
POOL = _native.ThreadPool(2)


def weight(
    outputs: int, inputs: int, rows: NDArray[np.floating[Any]] | None = None, pool: _native.ThreadPool = POOL
) -> _native.PackedWeight:
    """A float32 weight; zeros unless `rows` [outputs, inputs] are given."""
    packed = _native.PackedWeight(outputs, inputs, _native.WeightLayout.floats("F32"))
    if rows is not None:
        packed.pack_floats(0, np.ascontiguousarray(rows, np.float32).view(np.uint8), pool)
    return packed


def block_weight(outputs: int, inputs: int) -> _native.PackedWeight:
    return _native.PackedWeight(outputs, inputs, _native.WeightLayout.gguf("Q8_0"))


def integers(*values: int) -> NDArray[np.int32]:
    return np.array(values, np.int32)


@dataclass(frozen=True)
class Arena:
    """Keys and values of `layers` layers; every logical block is block 0."""

    layers: int = 1
    heads: int = 1
    head_dim: int = 16

    def arrays(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        shape = (1, self.layers, self.heads)
        keys = np.zeros((*shape, self.head_dim, 32), np.float16)
        return keys, np.zeros((*shape, 32, self.head_dim), np.float16)


@dataclass
class Building:
    """A program under construction."""

    workspace: _native.Workspace = field(default_factory=_native.Workspace)
    pool: _native.ThreadPool = POOL
    isa: str = ""

    def __post_init__(self) -> None:
        self.program = _native.Program(self.pool, self.workspace, self.isa)

    def value(self, width: int = 16, row_set: int = 0) -> int:
        return self.program.value(width, row_set)

    def embedded(self, width: int = 16, rows: F32 | None = None) -> int:
        """A new value that an embedding writes."""
        y = self.value(width)
        table = weight(4 if rows is None else len(rows), width, rows, self.pool)
        self.program.embed(y, table, 1.0, False)
        return y

    def finish(self, *keep: int) -> _native.Program:
        self.program.finish(keep)
        return self.program


def assert_refused(build: Callable[[Building], object], message: str) -> None:
    """What `build` appends is refused when the program is finished, with words that match."""
    building = Building()
    build(building)
    with pytest.raises(ValueError, match=message):
        building.finish()


def begin(
    program: _native.Program,
    tokens: Sequence[int],
    context: int = 0,
    arrays: tuple[NDArray[np.float16], NDArray[np.float16]] | None = None,
    row_sets: Sequence[NDArray[np.int32]] = (),
    only_greatest: bool = False,
) -> None:
    """A pass over one span of `tokens` that follows `context` positions."""
    rows = len(tokens)
    slots = np.arange(context, context + rows, dtype=np.int32)
    table = np.zeros((1, (context + rows + 31) // 32), np.int32)
    keys, values = arrays or Arena().arrays()
    program.begin(
        np.asarray(tokens, np.int32),
        slots,
        slots,
        np.arange(-1, rows - 1, dtype=np.int32),
        *(integers(0, rows), integers(context), integers(0)),
        table,
        list(row_sets),
        keys,
        values,
        only_greatest,
    )


def attend(
    building: Building,
    heads: int = 1,
    kv_heads: int = 1,
    head_dim: int = 16,
    widths: tuple[int, int, int, int] = (16, 16, 16, 16),
    kv_layer: int = 0,
    row_set: int = 0,
    rope: _native.RopeSpec | None = None,
    wants_mass: bool = False,
) -> int:
    """An attention over embedded q, k and v of these widths; the last is the output's, which is returned."""
    q, k, v = (building.embedded(width) for width in widths[:3])
    y = building.value(widths[3])
    building.program.attend(
        *(q, k, v, y, kv_layer, heads, kv_heads, head_dim, row_set, 1.0, 0, 0.0, rope, rope, wants_mass)
    )
    return y
