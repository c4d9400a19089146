"""The shared nouns: what one forward pass is about. Integers and arrays only, no behaviour of an engine.

Shape letters, here and everywhere: T rows (tokens) of a batch, S spans, R output rows, L layers,
H query heads, K key-value heads, D head dimension, V vocabulary, B blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I32 = NDArray[np.int32]

BLOCK_SIZE = 32
"""Positions in one KV block. Also the unit in which attention reads keys, so it never changes a sum."""

ALL_ROWS = "all"
OUTPUT_ROWS = "outputs"


class Span(NamedTuple):  # made for each row that decodes; a frozen dataclass takes three times as long
    """Rows of one sequence that run in one step: a prompt chunk, a decode token or a draft tree.

    `context` slots of the sequence are computed already; row i of the span is stored in slot
    context + i. `parents[i]` is the index inside the span of row i's parent, -1 for a child of the
    last context token; None means a causal chain. `outputs` are the span's rows whose logits are
    wanted. `table` lists the sequence's blocks and must cover context + len(tokens) slots.
    """

    sequence: int
    context: int
    tokens: I32  # [rows]
    table: I32  # [blocks]
    outputs: I32  # [wanted rows], ascending
    parents: I32 | None = None


@dataclass(frozen=True)
class Batch:
    """A ragged batch of spans as flat arrays; what every executor runs.

    `positions` are logical (what RoPE and the causal mask see), `slots` say where a row's KV lies in
    its own sequence; they differ only inside draft trees. `parents` are batch rows, -1 where the
    parent is the span's context. For a span that is not a tree, row r's parent is r - 1.
    """

    tokens: I32  # [T]
    positions: I32  # [T]
    slots: I32  # [T]
    parents: I32  # [T]
    span_start: I32  # [S + 1]
    context: I32  # [S]
    is_tree: I32  # [S], 0 or 1
    tables: I32  # [S, most blocks], padded with -1
    outputs: I32  # [R] batch rows whose logits are wanted
    only_greatest: bool = False  # of each row of logits just the place of the greatest
    row_sets: Mapping[str, I32] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def num_rows(self) -> int:
        return len(self.tokens)

    @property
    def num_spans(self) -> int:
        return len(self.context)

    def moved_on(self, tokens: Sequence[int]) -> Batch:
        """The same spans, of one row each, a position on: `tokens` [S] follow theirs."""
        assert len(tokens) == self.num_spans == self.num_rows
        at = self.context + np.int32(1)
        following = np.array(tokens, dtype=np.int32)
        return replace(self, tokens=following, positions=at, slots=at, context=at)

    def rows(self, row_set: str) -> I32:
        """Batch rows of a named row set, ascending."""
        if row_set == ALL_ROWS:
            return np.arange(self.num_rows, dtype=np.int32)
        if row_set == OUTPUT_ROWS:
            return self.outputs
        return self.row_sets[row_set]

    def span_of(self, row: int) -> int:
        return int(np.searchsorted(self.span_start, row, side="right")) - 1

    def visible_slots(self, row: int) -> I32:
        """Slots that a row attends to, in logical order, itself last: position p is entry p."""
        span = self.span_of(row)
        context = int(self.context[span])
        if not self.is_tree[span]:
            return np.arange(int(self.slots[row]) + 1, dtype=np.int32)
        path = []
        while row >= 0:
            path.append(int(self.slots[row]))
            row = int(self.parents[row])
        return np.concatenate([np.arange(context, dtype=np.int32), np.array(path[::-1], dtype=np.int32)])
