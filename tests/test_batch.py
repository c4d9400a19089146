"""Spans laid out as a batch."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from pelton.batch import make_batch
from pelton.types import Batch, Span

EMPTY = np.zeros(0, np.int32)


def span(context: int, tokens: list[int], parents: list[int] | None = None, first_block: int = 0) -> Span:
    blocks = -(-(context + len(tokens)) // 32)
    return Span(
        0,
        context,
        np.array(tokens, np.int32),
        np.arange(first_block, first_block + blocks, dtype=np.int32),
        np.array([len(tokens) - 1], np.int32),
        None if parents is None else np.array(parents, np.int32),
    )


def test_chunk_decode_and_tree_share_one_batch() -> None:
    batch = make_batch(
        [span(0, [5, 6, 7]), span(40, [8], first_block=3), span(2, [1, 2, 3, 4], [-1, 0, 0, 2])]
    )
    assert batch.tokens.tolist() == [5, 6, 7, 8, 1, 2, 3, 4]
    assert batch.positions.tolist() == [0, 1, 2, 40, 2, 3, 3, 4]
    assert batch.slots.tolist() == [0, 1, 2, 40, 2, 3, 4, 5]
    assert batch.parents.tolist() == [-1, 0, 1, -1, -1, 4, 4, 6]
    assert batch.span_start.tolist() == [0, 3, 4, 8]
    assert batch.tables.tolist() == [[0, -1], [3, 4], [0, -1]]
    assert batch.outputs.tolist() == [2, 3, 7]
    assert batch.visible_slots(2).tolist() == [0, 1, 2]
    assert batch.visible_slots(7).tolist() == [0, 1, 2, 4, 5]
    assert [batch.span_of(row) for row in (0, 2, 3, 4, 7)] == [0, 0, 1, 2, 2]


def test_decode_batches_are_laid_out_like_any_other() -> None:
    decode = [span(40, [8], first_block=3), span(7, [9]), span(2, [4], [-1])]
    together = make_batch(decode)
    chunk = span(0, [5, 6])
    mixed = make_batch([*decode, chunk])
    for field in fields(Batch):
        if field.name in ("row_sets", "only_greatest"):
            continue
        fast, general = getattr(together, field.name), getattr(mixed, field.name)
        count = 4 if field.name == "span_start" else 3
        np.testing.assert_array_equal(fast, general[:count], err_msg=field.name)
        assert fast.dtype == np.int32
    assert not together.only_greatest
    assert make_batch(decode, only_greatest=True).only_greatest
    assert make_batch([*decode, chunk], only_greatest=True).only_greatest
