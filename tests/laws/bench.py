"""What the law tests share: run token sequences through an executor in many ways, compare bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pelton.batch import make_batch
from pelton.exec.protocol import Executor
from pelton.kv import BlockPool, BlockTable, KVArena, KVLayout
from pelton.types import I32, Span

F32 = NDArray[np.float32]


def random_tokens(length: int, seed: int, vocab: int) -> I32:
    return np.random.default_rng(seed).integers(0, vocab, length).astype(np.int32)


@dataclass
class Walk:
    """One sequence under way: its tokens, its KV table, how many of them are computed."""

    tokens: I32
    table: BlockTable
    computed: int = 0

    def span(self, count: int) -> Span:
        """The next rows, logits wanted for each."""
        end = min(self.computed + count, len(self.tokens))
        self.table.prepare(self.computed, end)
        rows = end - self.computed
        return Span(
            0,
            self.computed,
            self.tokens[self.computed : end],
            self.table.array,
            np.arange(rows, dtype=np.int32),
        )


class Bench:
    """An executor with an arena of its own."""

    def __init__(self, executor: Executor, blocks: int = 256, dtype: str = "int8") -> None:
        self.executor = executor
        self.arena = KVArena(KVLayout(executor.plan.kv, dtype), blocks)
        self.pool = BlockPool(blocks)

    @property
    def vocab(self) -> int:
        return self.executor.plan.vocab_size

    def walk(self, tokens: I32) -> Walk:
        return Walk(tokens, BlockTable(self.pool, self.arena.copy_block))

    def run(self, spans: Sequence[Span]) -> list[F32]:
        """One forward pass; a copy of the logits of each span's rows."""
        batch = make_batch(spans)
        forward = self.executor.begin(batch, self.arena)
        forward.advance()
        ends = np.cumsum([len(span.outputs) for span in spans])[:-1]
        return [part.copy() for part in np.split(forward.logits(), ends)]

    def alone(self, tokens: I32, chunk: int = 10**9) -> F32:
        """Logits of every row, the sequence by itself in chunks."""
        walk = self.walk(tokens)
        rows = []
        while walk.computed < len(tokens):
            span = walk.span(chunk)
            rows += self.run([span])
            walk.computed += len(span.tokens)
        walk.table.release()
        return np.concatenate(rows)

    def among(self, tokens: I32, neighbours: int, chunk: int, seed: int) -> F32:
        """The same while random neighbours of random lengths run in the same passes, around it."""
        random = np.random.default_rng(seed)
        others = [
            self.walk(random_tokens(int(random.integers(1, 40)), seed + 1 + i, self.vocab))
            for i in range(neighbours)
        ]
        walk = self.walk(tokens)
        place = int(random.integers(0, neighbours + 1))
        rows = []
        while walk.computed < len(tokens):
            walks = [w for w in others[:place] if w.computed < len(w.tokens)]
            mine = len(walks)
            walks += [walk, *(w for w in others[place:] if w.computed < len(w.tokens))]
            spans = [w.span(chunk if w is walk else int(random.integers(1, 12))) for w in walks]
            rows.append(self.run(spans)[mine])
            for w, span in zip(walks, spans, strict=True):
                w.computed += len(span.tokens)
        for w in [*others, walk]:
            w.table.release()
        return np.concatenate(rows)


def check_row_independence(
    make: Callable[[int], Executor], length: int, batches: Sequence[int], dtype: str = "int8"
) -> None:
    """Law 2 for one model: `make(threads)` gives its executor. Every comparison is of bits."""
    bench = Bench(make(2), dtype=dtype)
    tokens = random_tokens(length, 1, bench.vocab)
    whole = bench.alone(tokens)
    assert np.isfinite(whole).all()
    for chunk in (1, 7, 64, 512):
        np.testing.assert_array_equal(bench.alone(tokens, chunk), whole, err_msg=f"chunks of {chunk}")
    for size in batches:
        for chunk in (7, 64):
            among = bench.among(tokens, size - 1, chunk, seed=size)
            np.testing.assert_array_equal(among, whole, err_msg=f"batch of {size}, chunks of {chunk}")
    bench.executor.close()
    single = Bench(make(1), dtype=dtype)
    np.testing.assert_array_equal(single.alone(tokens, 64), whole, err_msg="one thread")
    single.executor.close()
