"""Run a loaded model: whole or in chunks, on any executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pelton.batch import make_batch
from pelton.exec.protocol import Executor
from pelton.exec.reference import ReferenceExecutor
from pelton.kv import KVArena, KVLayout, blocks_for
from pelton.models.load import LoadedModel
from pelton.plan import Plan
from pelton.quant import Weight
from pelton.types import Span


def logits_of(
    model: LoadedModel,
    tokens: NDArray[np.int32],
    chunks: Sequence[int] = (),
    make_executor: Callable[[Plan, Mapping[str, Weight]], Executor] = ReferenceExecutor,
) -> NDArray[np.float32]:
    """float32 [tokens, V] with float32 keys and values; `chunks` are lengths that sum to the whole."""
    executor = make_executor(model.plan, model.weights)
    blocks = blocks_for(len(tokens))
    arena = KVArena(KVLayout(model.plan.kv, "float32"), blocks)
    table = np.arange(blocks, dtype=np.int32)
    found, start = [], 0
    for length in chunks or (len(tokens),):
        part = tokens[start : start + length]
        span = Span(0, start, part, table, np.arange(len(part), dtype=np.int32))
        forward = executor.begin(make_batch([span]), arena)
        forward.advance()
        found.append(forward.logits().copy())
        start += length
    executor.close()
    return np.concatenate(found)
