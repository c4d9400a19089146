"""Weights while they are packed: one loaded at a time, each once, and none kept."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from weakref import ReferenceType, ref

import numpy as np
import pytest

from pelton import LLM
from pelton.exec.native import NativeExecutor
from pelton.models.load import load_model
from pelton.quant import Tensor, Weight
from pelton.quant.format import U8

from ..laws.bench import Bench, random_tokens


@dataclass(frozen=True)
class Watched(Weight):
    """Notes in `living`, for each load, how many of the bytes that were made for earlier ones still live."""

    origin: Weight
    made: list[ReferenceType[U8]]
    living: list[int]

    def load(self) -> Tensor:
        self.living.append(sum(data() is not None for data in self.made))
        data = self.origin.load().data.copy()  # not a view: whoever still reads a part keeps this alive
        self.made.append(ref(data))
        return Tensor(self.name, self.format, self.shape, data)


@pytest.mark.parametrize("number_format", ["BF16", "Q4_0", "IQ4_NL"])  # each is packed in another way
def test_one_weight_is_loaded_at_a_time_and_none_is_kept(number_format: str) -> None:
    model = load_model(f"synthetic:llama-135m?format={number_format}&layers=1&context=64")
    made: list[ReferenceType[U8]] = []
    living: list[int] = []
    unlike = {id(weight): weight for weight in model.weights.values()}
    watched = {key: Watched(w.name, w.format, w.shape, w, made, living) for key, w in unlike.items()}
    executor = NativeExecutor(model.plan, {name: watched[id(w)] for name, w in model.weights.items()}, 2)
    assert model.weights["output"] is model.weights["token_embd"]  # one weight of two names is loaded once
    assert living == [0] * len(unlike)
    tokens = random_tokens(5, 1, model.shape.vocab_size)
    found = Bench(executor, blocks=2).alone(tokens)
    assert [data() for data in made] == [None] * len(unlike)
    executor.close()
    tensors = {name: weight.load() for name, weight in model.weights.items()}
    kept = NativeExecutor(model.plan, tensors, 2)
    np.testing.assert_array_equal(found, Bench(kept, blocks=2).alone(tokens))
    kept.close()


def test_a_synthetic_model_is_in_memory_once() -> None:
    """What NumPy allocates, which the packed copy is no part of, stays near the largest weight alone."""
    tracemalloc.start()
    with LLM("synthetic:llama-135m?format=BF16&layers=8&context=64", kv_memory=8 << 20, threads=1) as llm:
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        weights = llm.loaded.model.weights
        sizes = {id(weight): weight.num_bytes for weight in weights.values()}
        largest, total = max(sizes.values()), sum(sizes.values())
    assert largest <= peak < 1.5 * largest < total
    assert kept < largest / 4
