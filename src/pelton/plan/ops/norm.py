"""Normalizations over the whole row or over equal groups of it (per-head query and key norms)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...types import I32
from ..op import F32, Cost, Load, Op, Run, Shape, WeightShapes, elementwise_cost, need, need_vector


@dataclass(frozen=True)
class Norm(Op):
    """Normalize over `group` neighbouring elements (0: the row). weight and bias are group or row long."""

    weight: str | None
    eps: float
    group: int = 0
    bias: str | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(name for name in (self.weight, self.bias) if name is not None)

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 1, self, "takes one input")
        width = inputs[0].width
        group = self.group or width
        need(width % group == 0, self, f"a row of {width} does not split into groups of {group}")
        for name in self.weights:
            need_vector(self, weights, name, width, group)
        return (inputs[0],)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return elementwise_cost(load, outputs, passes=2, adds=3)

    def _grouped(self, x: F32) -> F32:
        """[T, width] -> [T, groups, group]; written so that no rows are no special case."""
        group = self.group or x.shape[1]
        return x.reshape(len(x), x.shape[1] // group, group)

    def _affine(self, run: Run, x: F32, groups: F32) -> F32:
        result = groups
        for name, combine in ((self.weight, np.multiply), (self.bias, np.add)):
            if name is not None:
                vector = run.weight(name)
                result = combine(result, vector.reshape(-1, result.shape[-1]))
        return result.reshape(x.shape).astype(np.float32, copy=False)


@dataclass(frozen=True)
class RMSNorm(Norm):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019)."""

    kind: ClassVar[str] = "rms_norm"

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        groups = self._grouped(inputs[0])
        mean = np.mean(groups * groups, axis=-1, keepdims=True, dtype=np.float32)
        return (self._affine(run, inputs[0], groups / np.sqrt(mean + np.float32(self.eps))),)


@dataclass(frozen=True)
class LayerNorm(Norm):
    """(x - mean) / sqrt(variance + eps) * weight + bias (Ba et al. 2016)."""

    kind: ClassVar[str] = "layer_norm"

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        groups = self._grouped(inputs[0])
        centred = groups - np.mean(groups, axis=-1, keepdims=True, dtype=np.float32)
        variance = np.mean(centred * centred, axis=-1, keepdims=True, dtype=np.float32)
        return (self._affine(run, inputs[0], centred / np.sqrt(variance + np.float32(self.eps))),)
