"""Run a loaded model with the reference executor: whole or in chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pelton.batch import make_batch
from pelton.exec.reference import ReferenceExecutor
from pelton.kv import KVArena, KVLayout, blocks_for
from pelton.models.load import LoadedModel
from pelton.types import Span


def logits_of(
    model: LoadedModel, tokens: NDArray[np.int32], chunks: Sequence[int] = ()
) -> NDArray[np.float32]:
    """float32 [tokens, V] with float32 keys and values; `chunks` are lengths that sum to the whole."""
    executor = ReferenceExecutor(model.plan, model.weights)
    blocks = blocks_for(len(tokens))
    arena = KVArena(KVLayout(model.plan.kv, "float32"), blocks)
    table = np.arange(blocks, dtype=np.int32)
    found, start = [], 0
    for length in chunks or (len(tokens),):
        part = tokens[start : start + length]
        span = Span(0, start, part, table, np.arange(len(part), dtype=np.int32))
        forward = executor.begin(make_batch([span]), arena)
        forward.advance()
        found.append(forward.logits())
        start += length
    return np.concatenate(found)
