"""Synthetic weights: the same every time, of the right spread, and quick to make."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pelton.errors import ConfigError
from pelton.quant import FORMATS
from pelton.weights.synthetic import synthetic_weight


@pytest.mark.parametrize("name", list(FORMATS))
def test_spread_is_that_of_the_inputs_and_no_two_rows_are_equal(name: str) -> None:
    tensor = synthetic_weight("blk.0.attn_q.weight", (96, 1024), FORMATS[name], seed=1).load()
    values = tensor.dequantize()
    assert values.shape == (96, 1024)
    assert abs(values.std() * 32 - 1) < 0.08
    assert abs(values.mean() * 32) < 0.05
    assert len(np.unique(tensor.row_bytes(), axis=0)) == 96


def test_same_seed_same_bytes_and_names_and_seeds_differ() -> None:
    item = FORMATS["Q4_K"]
    weight = synthetic_weight("a", (64, 256), item, 7)
    first = weight.load()
    assert weight.num_bytes == first.num_bytes
    assert np.array_equal(first.data, weight.load().data)
    assert np.array_equal(first.data, synthetic_weight("a", (64, 256), item, 7).load().data)
    assert not np.array_equal(first.data, synthetic_weight("b", (64, 256), item, 7).load().data)
    assert not np.array_equal(first.data, synthetic_weight("a", (64, 256), item, 8).load().data)
    assert not first.data.flags.writeable


def test_norms_and_biases_are_floats_near_one_and_zero() -> None:
    shapes = [("norm.weight", (50,)), ("attn_q.bias", (50,)), ("experts", (2, 3, 256))]
    weights = {name: synthetic_weight(name, shape, FORMATS["Q6_K"], seed=0) for name, shape in shapes}
    tensors = {name: weight.load() for name, weight in weights.items()}
    assert all(weights[name].format == tensor.format for name, tensor in tensors.items())
    assert [tensors[name].format.name for name, _ in shapes] == ["F32", "F32", "Q6_K"]
    assert abs(tensors["norm.weight"].dequantize().mean() - 1) < 0.1
    assert abs(tensors["attn_q.bias"].dequantize().mean()) < 0.02
    assert tensors["experts"].shape == (2, 3, 256)


def test_memory_is_that_of_the_file() -> None:
    item = FORMATS["Q4_0"]
    synthetic_weight("warm", (32, 4096), item, 0).load()
    tracemalloc.start()
    tensor = synthetic_weight("w", (8192, 4096), item, 0).load()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tensor.num_bytes == 8192 * 4096 // 32 * 18
    assert peak < tensor.num_bytes + (1 << 20)


@pytest.mark.parametrize("shape", [(), (0, 256), (4, 100), (-1, 256)])
def test_a_shape_the_format_cannot_hold_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        synthetic_weight("w", shape, FORMATS["Q4_K"], 0)
    assert (caught.value.subject, caught.value.field) == ("w", "shape")
