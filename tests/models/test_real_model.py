"""The default model against transformers in float32 of the same weights, on 20 prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pelton.batch import make_batch
from pelton.exec.reference import ReferenceExecutor
from pelton.kv import KVArena, KVLayout, blocks_for
from pelton.models.load import load_model
from pelton.types import Span

from .real_goldens import PROMPTS, real_goldens

TOLERANCE = 2e-3


def test_reference_equals_transformers(real_model_path: Path) -> None:
    """All prompts as spans of one batch; keys and values in float32."""
    model = load_model(real_model_path)
    goldens = real_goldens()
    assert len(goldens) == len(PROMPTS) == 20
    spans, first = [], 0
    for index, golden in enumerate(goldens):
        blocks = blocks_for(len(golden.tokens))
        table = np.arange(first, first + blocks, dtype=np.int32)
        last = np.array([len(golden.tokens) - 1], np.int32)
        spans.append(Span(index, 0, golden.tokens, table, last))
        first += blocks
    executor = ReferenceExecutor(model.plan, model.weights)
    forward = executor.begin(make_batch(spans), KVArena(KVLayout(model.plan.kv, "float32"), first))
    forward.advance()
    for golden, found in zip(goldens, forward.logits().astype(np.float64), strict=True):
        assert np.abs(found[golden.kept] - golden.logits).max() <= TOLERANCE
        total = found.max() + np.log(np.exp(found - found.max()).sum())
        assert abs(total - golden.logsumexp) <= TOLERANCE
