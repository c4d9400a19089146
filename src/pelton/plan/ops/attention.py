"""Rotary positions and attention over the KV store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...types import ALL_ROWS, BLOCK_SIZE, I32
from ..op import F32, Cost, Load, Op, Run, Shape, WeightShapes, elementwise_cost, need


@dataclass(frozen=True)
class Rope(Op):
    """Rotary position embedding (Su et al. 2021) on the first 2 * len(frequencies) of each head.

    Pair i turns by position * frequencies[i]; both halves are then multiplied by `magnitude`
    (YaRN's and LongRoPE's attention factor). `interleaved`: pairs are neighbours (2i, 2i+1), as
    GGUF's llama files have them; otherwise (i, i + half), as Hugging Face has them.
    """

    kind: ClassVar[str] = "rope"
    head_dim: int
    frequencies: tuple[float, ...]
    magnitude: float = 1.0
    interleaved: bool = False

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 1 and inputs[0].width % self.head_dim == 0, self, "needs whole heads")
        need(2 * len(self.frequencies) <= self.head_dim, self, "rotates more than a head")
        return (inputs[0],)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        half = len(self.frequencies)
        heads = (
            inputs[0].reshape(len(rows), inputs[0].shape[1] // self.head_dim, self.head_dim).copy()
        )  # [T, heads, D]
        # float64, since float32 angles near position 2,000 are off by 1e-4 of a turn
        angle = run.batch.positions[rows].astype(np.float64)[:, None] * np.array(self.frequencies)
        cos = (np.cos(angle) * self.magnitude).astype(np.float32)[:, None, :]
        sin = (np.sin(angle) * self.magnitude).astype(np.float32)[:, None, :]
        if self.interleaved:
            first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        else:
            first, second = slice(0, half), slice(half, 2 * half)
        a, b = heads[:, :, first].copy(), heads[:, :, second].copy()
        heads[:, :, first] = a * cos - b * sin
        heads[:, :, second] = b * cos + a * sin
        return (heads.reshape(inputs[0].shape),)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        return elementwise_cost(load, outputs, passes=2, adds=2)


@dataclass(frozen=True)
class Attend(Op):
    """Store k and v of all rows in the KV of `kv_layer`, then let each row of q attend to what it may see.

    Inputs q [rows of a row set, H*D], k [T, K*D], v [T, K*D]; output as q. A row sees its context and its
    ancestors in the span, in logical order, the last `window` positions only if window > 0. `cap`
    bounds scores by cap * tanh(score / cap). Queries and the weights of values are rounded as the format of
    keys and values wants them (kv/formats.py). `mass` names a tap that receives, per span, the probability
    mass each KV slot got, summed over all rows and heads: [S, most slots].
    """

    kind: ClassVar[str] = "attend"
    kv_layer: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int = 0
    cap: float = 0.0
    mass: str | None = None

    def shapes(self, inputs: Sequence[Shape], weights: WeightShapes) -> tuple[Shape, ...]:
        need(len(inputs) == 3, self, "takes q, k and v")
        widths = (self.num_heads * self.head_dim,) + 2 * (self.num_kv_heads * self.head_dim,)
        need(tuple(i.width for i in inputs) == widths, self, f"widths must be {widths}")
        need({i.rows for i in inputs[1:]} == {ALL_ROWS}, self, "k and v must cover all rows")
        need(self.mass is None or inputs[0].rows == ALL_ROWS, self, "mass is that of all rows' queries")
        need(self.num_heads % self.num_kv_heads == 0, self, "query heads must divide into key heads")
        return (inputs[0],)

    def define(self, run: Run, rows: I32, *inputs: F32) -> tuple[F32, ...]:
        count, dim = len(rows), self.head_dim
        stored = run.batch.rows(ALL_ROWS)
        keys, values = (x.reshape(len(stored), self.num_kv_heads, dim) for x in inputs[1:])
        run.kv.write(self.kv_layer, run.batch, stored, keys, values)
        group = self.num_heads // self.num_kv_heads
        queries = run.kv.round_queries(inputs[0].reshape(count, self.num_kv_heads, group, dim))
        result = np.zeros_like(queries)
        mass = self._empty_mass(run)
        for index, row in enumerate(rows):
            slots = run.batch.visible_slots(int(row))[-self.window :]  # -0 takes all of them
            span = run.batch.span_of(int(row))
            k, v = run.kv.read(self.kv_layer, run.batch, span, slots)  # [N, K, D]
            weights = self._weights(queries[index], k)  # [K, H/K, N] from [K, H/K, D]
            first = int(run.batch.positions[row]) + 1 - len(slots)
            result[index] = np.einsum("kgn,nkd->kgd", run.kv.round_weights(weights, v, first), v)
            if mass is not None:
                mass[span, slots] += weights.sum(axis=(0, 1))
        if mass is not None and self.mass is not None:
            run.taps[self.mass] = mass
        return (result.reshape(inputs[0].shape),)

    def _weights(self, query: F32, keys: F32) -> F32:
        scores = np.einsum("kgd,nkd->kgn", query, keys) * np.float32(self.scale)
        if self.cap:
            scores = np.float32(self.cap) * np.tanh(scores / np.float32(self.cap))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(scores / scores.sum(axis=-1, keepdims=True), dtype=np.float32)

    def _empty_mass(self, run: Run) -> F32 | None:
        if self.mass is None:
            return None
        return np.zeros((run.batch.num_spans, run.batch.tables.shape[1] * BLOCK_SIZE), np.float32)

    def cost(self, load: Load, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        row_bytes = 4.0 * sum(load.rows[i.rows] * i.width for i in (*inputs, *outputs))
        attended = load.attended[inputs[0].rows]
        kv_bytes = 2.0 * load.kv_bytes * min(load.context, attended) * inputs[1].width
        return Cost(row_bytes + kv_bytes, 2.0 * attended * inputs[0].width)
