"""Weights in the form the native kernels stream: each is loaded, packed once, and let go."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .._native import PackedWeight, ThreadPool, WeightLayout, WeightMemory, reads_gguf
from ..errors import ModelFileError
from ..quant import Format
from ..quant.tensor import Tensor, Weight
from ..weights.mapped import release_pages

F32 = NDArray[np.float32]

_SLICE_ELEMENTS = 1 << 22
"""Elements unpacked at a time where a format has no native reader: bounds the memory of loading."""


class NativeWeights:
    """Packs weights when first asked for. Two names of one weight (tied embeddings) share one copy."""

    def __init__(
        self,
        weights: Mapping[str, Weight],
        shapes: Mapping[str, tuple[int, ...]],
        threads: ThreadPool,
        paired: Mapping[str, int],
    ) -> None:
        self.paired = paired
        """Matrices that are held in pairs of blocks, and how many of these a segment has."""
        self._weights = weights
        self._shapes = shapes
        self._threads = threads
        self._memory = WeightMemory()
        self._named: dict[str, tuple[PackedWeight, ...]] = {}
        self._vectors: dict[str, F32] = {}

    def matrix(self, name: str) -> PackedWeight:
        """A [outputs, inputs] weight."""
        return self.matrices(name)[0]

    def matrices(self, name: str) -> tuple[PackedWeight, ...]:
        """The matrices of a [count, outputs, inputs] weight; a plain matrix counts as one."""
        if name not in self._named:
            weight = self._weight(name)
            twins = (packed for other, packed in self._named.items() if self._weights[other] is weight)
            self._named[name] = next(twins, ()) or self._load(weight, self.paired.get(name, 0))
        return self._named[name]

    def vector(self, name: str | None) -> F32 | None:
        """A one-dimensional weight as float32."""
        if name is None:
            return None
        if name not in self._vectors:
            values = self._weight(name).load().dequantize()
            self._vectors[name] = np.ascontiguousarray(values, dtype=np.float32)
        return self._vectors[name]

    def num_bytes(self, name: str) -> int:
        """Bytes that a weight occupies as kept."""
        if len(self._shapes[name]) == 1:
            return 4 * self._shapes[name][0]
        return sum(weight.num_bytes for weight in self.matrices(name))

    @property
    def packed(self) -> list[PackedWeight]:
        """All matrices that are kept, shared ones once."""
        return list({id(weight): weight for part in self._named.values() for weight in part}.values())

    @property
    def total_bytes(self) -> int:
        """Bytes of all that is kept, shared data once."""
        matrices = sum(weight.num_bytes for weight in self.packed)
        return matrices + sum(vector.nbytes for vector in self._vectors.values())

    def _weight(self, name: str) -> Weight:
        weight = self._weights[name]
        if weight.shape != self._shapes[name]:
            raise ModelFileError(f"the plan wants {self._shapes[name]}", subject=name, value=weight.shape)
        return weight

    def _load(self, weight: Weight, segment: int) -> tuple[PackedWeight, ...]:
        """The matrices of a weight; its bytes, perhaps made for this alone, are not kept."""
        tensor = weight.load()
        rows = tensor.shape[-2]
        flat = Tensor(tensor.name, tensor.format, (tensor.num_rows, tensor.shape[-1]), tensor.data)
        starts = range(0, flat.num_rows, rows)
        memory = None if segment else self._memory
        packed = tuple(self._pack(flat.rows(start, start + rows), memory) for start in starts)
        if segment:
            packed = tuple(plain.in_pairs(segment, self._threads, self._memory) for plain in packed)
        release_pages(tensor.data)
        return packed

    def _pack(self, tensor: Tensor, memory: WeightMemory | None) -> PackedWeight:
        outputs, inputs = tensor.shape
        form = tensor.format
        weight = PackedWeight(outputs, inputs, layout_of(form), memory)
        if form.panel is None:
            weight.pack_floats(0, tensor.row_bytes(), self._threads)
        elif reads_gguf(form.name):
            weight.pack_gguf(0, form.name, tensor.row_bytes(), self._threads)
        else:
            self._pack_codes(tensor, weight)
        return weight

    def _pack_codes(self, tensor: Tensor, weight: PackedWeight) -> None:
        outputs, inputs = tensor.shape
        unpack = tensor.format.unpack
        assert unpack is not None
        step = max(1, _SLICE_ELEMENTS // inputs)
        for start in range(0, outputs, step):
            rows = tensor.rows(start, min(start + step, outputs))
            codes, scales, minimums = unpack(rows.data.reshape(-1, tensor.format.block_bytes))
            count = rows.shape[0]
            codes = np.ascontiguousarray(codes.reshape(count, inputs))
            scales = np.ascontiguousarray(scales.reshape(count, -1), dtype=np.float32)
            if minimums is not None:
                minimums = np.ascontiguousarray(minimums.reshape(count, -1), dtype=np.float32)
            weight.pack_codes(start, codes, scales, minimums, self._threads)


def layout_of(form: Format) -> WeightLayout:
    """How a format's weights lie in memory, before some are made pairs of blocks."""
    panel = form.panel
    if panel is None:
        return WeightLayout.floats(form.name)
    if reads_gguf(form.name):
        return WeightLayout.gguf(form.name)
    return WeightLayout.block(
        panel.bits, panel.group, panel.offset, panel.scale_dtype, panel.has_minimum, panel.table
    )


def wants_blocks(weight: Weight) -> bool:
    """Whether products with this weight read 8-bit activation blocks instead of floats."""
    return weight.format.panel is not None
