"""What the tests of the native executor share: spans, passes over a tiny model, their logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pelton.batch import make_batch
from pelton.exec.native import NativeExecutor
from pelton.exec.reference import ReferenceExecutor
from pelton.plan import Plan
from pelton.types import Batch, Span

from ..laws.bench import random_tokens
from ..tiny import VOCAB, tiny_arena

F32 = NDArray[np.float32]

TABLE = np.array([5, 2, 9, 11, 0, 7, 3, 8, 1, 20, 15, 30, 31, 29, 16, 17, 18, 19, 22, 23], np.int32)


def span(tokens: object, context: int = 0, table: object = TABLE, parents: object = None) -> Span:
    rows = np.asarray(tokens, np.int32)
    above = None if parents is None else np.asarray(parents, np.int32)
    return Span(0, context, rows, np.asarray(table, np.int32), np.arange(len(rows), dtype=np.int32), above)


def logits(
    executor: NativeExecutor | ReferenceExecutor, plan: Plan, *passes: Batch, dtype: str = "float32"
) -> F32:
    """Logits of the passes one after another on a fresh arena."""
    arena = tiny_arena(plan, dtype=dtype)
    results = []
    for batch in passes:
        forward = executor.begin(batch, arena)
        forward.advance()
        results.append(forward.logits().copy())
    return np.concatenate(results)


def passes(length: int = 40, then: int = 3) -> list[Batch]:
    """A prompt, then single tokens."""
    tokens = random_tokens(length + then, 3, VOCAB)
    steps = [span([tokens[length + i]], length + i) for i in range(then)]
    return [make_batch([span(tokens[:length])]), *(make_batch([step]) for step in steps)]


Case = tuple[Plan, NativeExecutor, ReferenceExecutor]
