"""What an operation is: a frozen dataclass with its shape rule, NumPy definition, cost and parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import PlanError
from ..types import ALL_ROWS, I32, Batch

if TYPE_CHECKING:
    from .builder import PlanBuilder

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """A float32 array [rows of the row set, width]."""

    width: int
    rows: str = ALL_ROWS


@dataclass(frozen=True)
class Value:
    """One named buffer of a plan; written by exactly one step."""

    id: int
    shape: Shape

    @property
    def width(self) -> int:
        return self.shape.width

    @property
    def rows(self) -> str:
        return self.shape.rows


class KVView(Protocol):
    """Where attention keeps keys and values, as the NumPy definition sees it."""

    def write(self, layer: int, batch: Batch, rows: I32, keys: F32, values: F32) -> None:
        """Store keys, values [rows, K, D] of the given batch rows in their sequences' slots."""

    def read(self, layer: int, batch: Batch, span: int, slots: I32) -> tuple[F32, F32]:
        """Keys and values float32 [slots, K, D] of a span's sequence."""

    def round_queries(self, queries: F32) -> F32:
        """Queries [.., D] as keys are multiplied by them."""

    def round_weights(self, weights: F32, values: F32, first: int) -> F32:
        """Weights [K, H/K, N] as the values [N, K, D] of logical positions from `first` on are multiplied by
        them."""


class Run(Protocol):
    """What a NumPy definition may ask for while a plan runs."""

    @property
    def batch(self) -> Batch: ...

    @property
    def kv(self) -> KVView: ...

    @property
    def taps(self) -> MutableMapping[str, F32]: ...

    def weight(self, name: str) -> F32:
        """A weight as float32, dequantized exactly."""


@dataclass(frozen=True)
class Load:
    """How much one forward pass has to do: what the cost of a step depends on.

    rows: number of rows per row set. attended: per row set, over its rows, how many KV positions are
    visible in sum. context: how many KV positions all sequences have. kv_bytes: bytes of one stored key or
    value element. weight_bytes: bytes of a weight as kept.
    """

    rows: Mapping[str, int]
    attended: Mapping[str, int]
    context: int
    kv_bytes: float
    weight_bytes: Callable[[str], int]


@dataclass(frozen=True)
class Cost:
    bytes: float = 0.0
    multiply_adds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.multiply_adds + other.multiply_adds)


WeightShapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Op(ABC):
    """One row of the table of operations. Subclasses add their parameters as fields."""

    kind: ClassVar[str]

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights it reads, in a fixed order."""
        return ()

    @abstractmethod
    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        """Shapes of the outputs; raises PlanError when the inputs or weights do not fit."""

    @abstractmethod
    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        """The meaning in NumPy. `rows` are the batch rows that the first input (or output) covers."""

    @abstractmethod
    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Bytes moved and multiply-adds for one forward pass."""

    def decompose(self, builder: PlanBuilder, inputs: Sequence[Value]) -> tuple[Value, ...] | None:
        """The same in simpler operations, or None for a primitive that every executor must have."""
        return None


@dataclass(frozen=True)
class Step:
    """One operation applied to values. `layer` is -1 outside the layers."""

    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: int


def need(condition: bool, op: Op, message: str) -> None:
    """Raise PlanError naming the operation unless the condition holds."""
    if not condition:
        raise PlanError(message, subject=op.kind, value=None)


def need_vector(op: Op, weights: WeightShapes, name: str, *lengths: int) -> None:
    """Raise PlanError unless the weight is a vector of one of the given lengths."""
    shape = weights.get(name)
    need(shape is not None, op, f"there is no weight {name!r}")
    assert shape is not None
    need(len(shape) == 1 and shape[0] in lengths, op, f"weight {name!r} is {shape}, not one of {lengths}")


def elementwise_cost(load: Load, outputs: Sequence[Shape], passes: int, adds: float = 1.0) -> Cost:
    """Cost of an operation that streams `passes` float32 arrays of the output's shape."""
    elements = load.rows[outputs[0].rows] * outputs[0].width
    return Cost(bytes=4.0 * passes * elements, multiply_adds=adds * elements)
