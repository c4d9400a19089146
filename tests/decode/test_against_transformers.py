"""The processors against Hugging Face's, on a vocabulary of real size without ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pelton.config import SamplingParams
from pelton.decode.history import TokenHistory
from pelton.decode.pipeline import build_processors
from pelton.decode.processor import RequestTokens

pytestmark = pytest.mark.peers

V = 49_152
PROMPT = [5, 9, 100, 9, 40_000]
OUTPUT = [7, 7, 5, 1234]

CASES = [
    {"temperature": 0.3},
    {"top_k": 1},
    {"top_k": 50},
    {"top_k": 5000},
    {"top_p": 0.1},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"typical_p": 0.2},
    {"typical_p": 0.95},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"temperature": 0.7, "top_k": 40, "top_p": 0.9},
    {"temperature": 1.5, "top_k": 100, "typical_p": 0.9},
    {"repetition_penalty": 1.1, "temperature": 0.8, "top_p": 0.95},
]


def theirs(case: dict[str, float]) -> Any:
    transformers = pytest.importorskip("transformers")
    made = {
        "repetition_penalty": transformers.RepetitionPenaltyLogitsProcessor,
        "temperature": transformers.TemperatureLogitsWarper,
        "min_p": transformers.MinPLogitsWarper,
        "top_k": transformers.TopKLogitsWarper,
        "top_p": transformers.TopPLogitsWarper,
        "typical_p": transformers.TypicalLogitsWarper,
    }
    return transformers.LogitsProcessorList([make(case[name]) for name, make in made.items() if name in case])


def ours(case: dict[str, float], row: NDArray[np.float32]) -> NDArray[np.float32]:
    changed: NDArray[np.float32] = row.copy()
    for processor in build_processors(SamplingParams(**case), RequestTokens(V)):  # type: ignore[arg-type]
        processor.apply(changed, TokenHistory(PROMPT, OUTPUT))
    return changed


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_same_logits_as_hugging_face(case: dict[str, float], scale: float) -> None:
    torch = pytest.importorskip("torch")
    row = (np.random.default_rng(11).standard_normal(V) * scale).astype(np.float32)
    expected = theirs(case)(torch.tensor([PROMPT + OUTPUT]), torch.from_numpy(row[None].copy()))[0].numpy()
    got = ours(case, row)
    # float32 sums there, float64 here: tokens at the edge of the kept set may differ, few and light
    differing = np.flatnonzero((got > -np.inf) != (expected > -np.inf))
    weights = np.exp(row[differing].astype(np.float64)) / np.exp(row.astype(np.float64)).sum()
    assert weights.sum() < 2e-4
    both = (got > -np.inf) & (expected > -np.inf)
    assert both.any()
    np.testing.assert_allclose(got[both], expected[both], rtol=1e-6)
