"""Spans -> Batch: the flat arrays one forward pass runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from types import MappingProxyType

import numpy as np

from .types import BLOCK_SIZE, I32, Batch, Span

_NO_SETS: Mapping[str, I32] = MappingProxyType({})


def make_batch(
    spans: Sequence[Span], row_sets: Mapping[str, I32] = _NO_SETS, only_greatest: bool = False
) -> Batch:
    """Lay the spans out one after another; cost is per span, not per row. Asserts that each makes sense."""
    _, contexts, tokens, tables, wanted, above = zip(*spans, strict=True)
    lengths = list(map(len, tokens))
    if max(lengths) == 1 and sum(map(len, wanted)) == len(spans):
        return _decode_batch(contexts, tokens, tables, above, row_sets, only_greatest)
    for span in spans:
        _check(span)
    span_start = np.array([0, *accumulate(lengths)], dtype=np.int32)
    positions, slots, parents, outputs = [], [], [], []
    for index, span in enumerate(spans):
        first, rows = int(span_start[index]), lengths[index]
        slot = np.arange(span.context, span.context + rows, dtype=np.int32)
        slots.append(slot)
        positions.append(slot if span.parents is None else _tree_positions(span))
        parents.append(_batch_parents(span, first))
        outputs.append(span.outputs + np.int32(first))
    return Batch(
        tokens=np.concatenate(tokens),
        positions=np.concatenate(positions),
        slots=np.concatenate(slots),
        parents=np.concatenate(parents),
        span_start=span_start,
        context=np.array(contexts, dtype=np.int32),
        is_tree=np.array([it is not None for it in above], dtype=np.int32),
        tables=_padded(tables),
        outputs=np.concatenate(outputs),
        only_greatest=only_greatest,
        row_sets=row_sets,
    )


def _decode_batch(
    contexts: Sequence[int],
    tokens: Sequence[I32],
    tables: Sequence[I32],
    above: Sequence[I32 | None],
    row_sets: Mapping[str, I32],
    only_greatest: bool,
) -> Batch:
    """The same for one plain row a span, the commonest step: 8 microseconds instead of 30."""
    assert min(contexts) >= 0
    assert all(len(table) * BLOCK_SIZE > at for table, at in zip(tables, contexts, strict=True))
    assert all(parents is None or parents.tolist() == [-1] for parents in above)
    context = np.array(contexts, dtype=np.int32)
    starts, no_parents, no_trees = _constants(len(contexts))
    trees = [it is not None for it in above]
    return Batch(
        tokens=tokens[0] if len(tokens) == 1 else np.concatenate(tokens),
        positions=context,
        slots=context,
        parents=no_parents,
        span_start=starts,
        context=context,
        is_tree=np.array(trees, dtype=np.int32) if any(trees) else no_trees,
        tables=_padded(tables),
        outputs=starts[:-1],
        only_greatest=only_greatest,
        row_sets=row_sets,
    )


@lru_cache(maxsize=64)
def _constants(count: int) -> tuple[I32, I32, I32]:
    """Arrays that depend on the number of spans alone: 0..count, all -1, all 0. Read only."""
    starts = np.arange(count + 1, dtype=np.int32)
    none, zeros = np.full(count, -1, dtype=np.int32), np.zeros(count, dtype=np.int32)
    for array in (starts, none, zeros):
        array.flags.writeable = False
    return starts, none, zeros


def _check(span: Span) -> None:
    rows = len(span.tokens)
    assert rows > 0
    assert span.context >= 0
    assert len(span.table) * BLOCK_SIZE >= span.context + rows
    if span.parents is not None:
        assert len(span.parents) == rows
        assert np.all(span.parents < np.arange(rows))
        assert np.all(span.parents >= -1)


def _padded(tables: Sequence[I32]) -> I32:
    """Block tables as one array, the shorter ones filled up with -1."""
    if len(tables) == 1:
        return tables[0].reshape(1, -1)
    padded = np.full((len(tables), max(map(len, tables))), -1, dtype=np.int32)
    for row, table in enumerate(tables):
        padded[row, : len(table)] = table
    return padded


def _batch_parents(span: Span, first: int) -> I32:
    if span.parents is not None:
        return np.where(span.parents < 0, -1, span.parents + first).astype(np.int32)
    chain = np.arange(first - 1, first - 1 + len(span.tokens), dtype=np.int32)
    chain[0] = -1
    return chain


def _tree_positions(span: Span) -> I32:
    """Position of a tree row: context plus its depth."""
    assert span.parents is not None
    depth = np.zeros(len(span.parents), dtype=np.int32)
    for row, parent in enumerate(span.parents):
        depth[row] = 0 if parent < 0 else depth[parent] + 1
    return (depth + span.context).astype(np.int32)
