"""Row sets and taps: run a stretch of the plan on some rows, and copy a buffer out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...types import ALL_ROWS, I32
from ..op import F32, Cost, Load, Op, Run, Shape, WeightShapes, elementwise_cost, need


@dataclass(frozen=True)
class SelectRows(Op):
    """The rows of a named row set, out of all rows. "outputs" are the rows whose logits are wanted."""

    kind: ClassVar[str] = "select_rows"
    row_set: str

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 1 and inputs[0].rows == ALL_ROWS, self, "takes one array of all rows")
        return (Shape(inputs[0].width, self.row_set),)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        return (inputs[0][run.batch.rows(self.row_set)],)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return elementwise_cost(load, outputs, passes=2, adds=0)


@dataclass(frozen=True)
class ScatterRows(Op):
    """Inputs (whole, part): the whole with the row set's rows replaced by the part's."""

    kind: ClassVar[str] = "scatter_rows"
    row_set: str

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 2 and inputs[0].rows == ALL_ROWS, self, "takes an array of all rows and a part")
        need(inputs[1] == Shape(inputs[0].width, self.row_set), self, f"the part covers {inputs[1]}")
        return (inputs[0],)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        whole = inputs[0].copy()
        whole[run.batch.rows(self.row_set)] = inputs[1]
        return (whole,)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return elementwise_cost(load, outputs, passes=2, adds=0)


@dataclass(frozen=True)
class Tap(Op):
    """Copies its input out under a name; the plan goes on unchanged."""

    kind: ClassVar[str] = "tap"
    name: str

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 1, self, "takes one input")
        return ()

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        run.taps[self.name] = np.array(inputs[0], copy=True)
        return ()

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return elementwise_cost(load, inputs, passes=2, adds=0)
