"""The definition of correct: a plan run step by step with each operation's NumPy meaning, in float32."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import numpy as np
from numpy.typing import NDArray

from ..kv import KVArena
from ..plan import Plan, verify
from ..quant.tensor import Weight
from ..types import ALL_ROWS, Batch
from .feedback import feed_back
from .greatest import places_of_greatest
from .protocol import Until

F32 = NDArray[np.float32]


class ReferenceForward:
    """One pass; values stay readable as long as it lives."""

    def __init__(self, executor: ReferenceExecutor, batch: Batch, kv: KVArena) -> None:
        self._executor = executor
        self.batch = batch
        self.kv = kv
        self.taps: MutableMapping[str, F32] = {}
        self._values: dict[int, F32] = {}
        self._next = 0

    def weight(self, name: str) -> F32:
        return self._executor.weight(name)

    def advance(self, end: int | None = None) -> None:
        plan = self._executor.plan
        stop = len(plan.steps) if end is None else end
        for step in plan.steps[self._next : stop]:
            row_set = plan.shapes[(step.inputs or step.outputs)[0]].rows
            inputs = [self._values[i] for i in step.inputs]
            results = step.op.define(self, self.batch.rows(row_set or ALL_ROWS), *inputs)
            self._values.update(zip(step.outputs, results, strict=True))
        self._next = max(self._next, stop)

    def read(self, value: int) -> F32:
        return np.array(self._values[value])

    def write(self, value: int, array: F32) -> None:
        assert array.shape == self._values[value].shape
        self._values[value] = np.array(array, dtype=np.float32)

    def logits(self) -> F32:
        plan = self._executor.plan
        result = self._values[plan.logits]
        if plan.shapes[plan.logits].rows == ALL_ROWS:
            return np.asarray(result[self.batch.outputs])
        return result

    def greatest(self) -> list[int]:
        return places_of_greatest(self.logits())

    def feed_back(self, passes: int, until: Until) -> list[list[int]]:
        return feed_back(self._executor, self, passes, until)


class ReferenceExecutor:
    """Runs a plan with NumPy; weights are dequantized once each, to float32, when first used."""

    def __init__(self, plan: Plan, weights: Mapping[str, Weight]) -> None:
        verify(plan)
        self.plan = plan
        self._weights = weights
        self._dequantized: dict[str, F32] = {}

    @property
    def weight_bytes(self) -> Mapping[str, int]:
        return {name: self._weights[name].num_bytes for name in self.plan.weights}

    def weight(self, name: str) -> F32:
        if name not in self._dequantized:
            self._dequantized[name] = self._weights[name].load().dequantize()
        return self._dequantized[name]

    def begin(self, batch: Batch, kv: KVArena) -> ReferenceForward:
        return ReferenceForward(self, batch, kv)

    def close(self) -> None:
        self._dequantized.clear()
