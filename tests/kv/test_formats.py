"""Formats of keys and values: what is stored is near what was given, finite, and in a place of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pelton.errors import ConfigError
from pelton.kv import KV_FORMATS, KVLayout
from pelton.kv.formats import turned
from pelton.plan import KVShape
from pelton.quant.floats import narrow_bf16, widen_bf16

F32 = NDArray[np.float32]
SIZES = (16, 32, 48, 64, 80, 96, 128, 256, 1024)


def heads(seed: int, size: int, spread: float) -> F32:
    """Three random heads, one element of which is larger than the others."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((3, size)) * spread
    x[:, random.integers(size)] *= random.choice([1.0, 30.0])
    return x.astype(np.float32)


@pytest.mark.parametrize("name", KV_FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_numbers_have_places_of_their_own(name: str, size: int) -> None:
    kind = KV_FORMATS[name]
    for places, shape in (
        (kind.key_places(size), kind.key_shape(size)),
        (kind.value_places(size), kind.value_shape(size)),
    ):
        assert places.shape == (32, size)
        assert sorted(places.reshape(-1)) == list(range(32 * size))
        assert np.prod(shape) * kind.packed == 32 * (size + kind.scale_rows)


def test_a_head_of_bytes_takes_little_more_than_bytes() -> None:
    shape = KVShape(layers=2, kv_heads=3, head_dim=64)
    assert KVLayout(shape, "int8").block_bytes == 2 * 3 * 2 * 32 * (64 + 4)
    assert KVLayout(shape, "bfloat16").block_bytes == 2 * 3 * 2 * 32 * 64 * 2


@given(st.integers(0, 2**32 - 1), st.sampled_from(SIZES), st.sampled_from([0.0, 1e-36, 1e-6, 1.0, 1e4, 1e25]))
def test_bytes_are_within_half_a_step(seed: int, size: int, spread: float) -> None:
    kind, x = KV_FORMATS["int8"], heads(seed, size, spread)
    values = kind.decode_values(*kind.encode_values(x))
    steps = np.abs(x).max(axis=-1, keepdims=True) / 127
    assert (np.abs(values - x) <= 0.5001 * steps + 1e-30).all()
    # H is sqrt(size) times a rotation: lengths of errors are those of the turned keys' over sqrt(size).
    keys = kind.decode_keys(*kind.encode_keys(x))
    part = size & -size
    step = np.abs(turned(x)).max(axis=-1) / 127
    allowed = 0.5001 * step * np.sqrt(size / part) + 1e-5 * length(x) + 1e-28
    assert (length(keys - x) <= allowed).all()
    assert (length(kind.round_queries(x) - x) <= allowed).all()


def length(x: F32) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(x.astype(np.float64), axis=-1))


def test_one_large_element_costs_a_turned_key_little() -> None:
    kind, x = KV_FORMATS["int8"], np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    x[:, 5] *= 30
    others = np.delete(np.arange(64), 5)
    turned_error = (kind.decode_keys(*kind.encode_keys(x)) - x)[:, others]
    plain_error = (kind.decode_values(*kind.encode_values(x)) - x)[:, others]
    assert np.linalg.norm(turned_error) < 0.4 * np.linalg.norm(plain_error)


@given(st.integers(0, 2**32 - 1), st.sampled_from(SIZES))
def test_turning_twice_is_turning_back(seed: int, size: int) -> None:
    x = heads(seed, size, 1.0)
    part = size & -size
    np.testing.assert_allclose(turned(turned(x)) / part, x, atol=1e-5 * float(np.abs(x).max()))
    products = (turned(x) * turned(x[::-1])).sum(axis=-1) / part
    np.testing.assert_allclose(products, (x * x[::-1]).sum(axis=-1), atol=1e-4 * float((x * x).sum()))


@given(st.integers(0, 2**32 - 1), st.integers(0, 600))
def test_weights_are_rounded_over_the_largest_of_their_chunk(seed: int, first: int) -> None:
    random = np.random.default_rng(seed)
    weights = (random.random((2, 3, 300)) ** 20).astype(np.float32)
    values = random.standard_normal((300, 2, 16)).astype(np.float32)
    found = KV_FORMATS["int8"].round_weights(weights, values, first)
    scales = np.abs(values).max(axis=-1).T[:, None, :] / 127
    chunks = (first + np.arange(300)) // 256
    for chunk in set(chunks):
        products = weights[..., chunks == chunk] * scales[..., chunks == chunk]
        error = np.abs(found[..., chunks == chunk] * scales[..., chunks == chunk] - products)
        assert (error <= products.max(axis=-1, keepdims=True) * (0.51 / 65535)).all()


def test_bfloat16_is_the_nearest() -> None:
    kind, x = KV_FORMATS["bfloat16"], heads(0, 64, 1.0)
    for found in (kind.decode_keys(*kind.encode_keys(x)), kind.decode_values(*kind.encode_values(x))):
        np.testing.assert_array_equal(found, widen_bf16(narrow_bf16(x)))


@pytest.mark.parametrize("name", KV_FORMATS)
@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, 3.4e38])
def test_what_is_stored_is_finite(name: str, number: float) -> None:
    kind, x = KV_FORMATS[name], np.full((2, 16), 1.0, np.float32)
    x[1, 3:] = number
    for decode, (numbers, scales) in (
        (kind.decode_keys, kind.encode_keys(x)),
        (kind.decode_values, kind.encode_values(x)),
    ):
        assert np.isfinite(decode(numbers, scales)).all()
    values = kind.decode_values(*kind.encode_values(x))
    largest = kind.largest if number > 0 else -kind.largest
    np.testing.assert_allclose(values[1, 3:], largest, rtol=0.01)


@pytest.mark.parametrize(("name", "size"), [("bfloat16", 5), ("int8", 20), ("int8", 2048)])
def test_a_size_that_does_not_fit_is_told(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match=f"not for heads of {size} elements"):
        KVLayout(KVShape(layers=1, kv_heads=1, head_dim=size), name)
