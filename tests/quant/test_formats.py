"""Every format against the gguf package's decoder, its own promise, and its panel."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.errors import ModelFileError
from pelton.quant import FORMATS, Format, format_named
from pelton.quant.format import F32, U8

ALL = list(FORMATS.values())
BLOCKED = [item for item in ALL if item.panel is not None]
# Positions of the half-precision fields of a block, from ggml-common.h.
HALF_FIELDS = {
    **dict.fromkeys(("Q8_0", "Q4_0", "Q5_0", "IQ4_NL", "IQ4_XS"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)},
}


def by_name(item: Format) -> str:
    return item.name


def random_blocks(item: Format, count: int, seed: int, sane_scales: bool = False) -> U8:
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (count, item.block_bytes), dtype=np.uint8)
    if sane_scales:
        for start in HALF_FIELDS[item.name]:
            scale = generator.normal(0, 0.01, (count, 1)).astype("<f2")
            blocks[:, start : start + 2] = scale.view(np.uint8)
    return blocks


def expected(item: Format, blocks: U8) -> F32:
    kind = gguf.GGMLQuantizationType[item.name]
    with np.errstate(all="ignore"):
        return np.asarray(dequantize(blocks, kind), dtype=np.float32).reshape(len(blocks), item.block)


def assert_same_bits(left: F32, right: F32) -> None:
    assert left.shape == right.shape
    assert left.dtype == right.dtype == np.float32
    both_nan = np.isnan(left) & np.isnan(right)
    assert ((left.view(np.uint32) == right.view(np.uint32)) | both_nan).all()


def test_there_are_fifteen_formats_of_the_sizes_gguf_gives() -> None:
    assert len(ALL) == 15
    for item in ALL:
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[item.name]] == (item.block, item.block_bytes)


def test_an_unknown_name_is_a_typed_error() -> None:
    assert format_named("Q4_K") is FORMATS["Q4_K"]
    with pytest.raises(ModelFileError, match="Q4_K_M") as caught:
        format_named("Q4_K_M")
    assert caught.value.field == "format"


@pytest.mark.parametrize("item", ALL, ids=by_name)
def test_decode_equals_the_gguf_package_on_any_bytes(item: Format) -> None:
    # Random bytes give every kind of scale: zero, negative, subnormal, infinite and NaN.
    blocks = random_blocks(item, 4000, seed=1)
    assert_same_bits(item.decode(blocks), expected(item, blocks))


@pytest.mark.parametrize("item", BLOCKED, ids=by_name)
def test_decode_equals_the_gguf_package_on_hostile_scales(item: Format) -> None:
    blocks = random_blocks(item, 64, seed=2)
    hostile = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 6e-8, 65504, -65504], dtype="<f2").view(np.uint8)
    for start in HALF_FIELDS[item.name]:
        blocks[:, start : start + 2] = np.tile(hostile.reshape(-1, 2), (8, 1))
    assert_same_bits(item.decode(blocks), expected(item, blocks))


@pytest.mark.parametrize("item", ALL, ids=by_name)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_blocks_and_strided_blocks(item: Format, count: int) -> None:
    wide = random_blocks(item, 2 * count, seed=3)
    assert_same_bits(item.decode(wide[::2]), item.decode(wide)[::2])
    assert item.encode(np.zeros((count, item.block), np.float32)).shape == (count, item.block_bytes)


@pytest.mark.parametrize("item", BLOCKED, ids=by_name)
def test_unpack_in_the_terms_of_the_panel_is_the_value(item: Format) -> None:
    panel, unpack = item.panel, item.unpack
    assert panel is not None
    assert unpack is not None
    blocks = random_blocks(item, 500, seed=4, sane_scales=True)
    codes, scales, minimums = unpack(blocks)
    assert codes.dtype == np.uint8
    assert codes.shape == (500, item.block)
    assert scales.dtype == np.float32
    assert scales.shape == (500, item.block // panel.group)
    assert int(codes.max()) < 1 << panel.bits
    assert (minimums is not None) == panel.has_minimum
    if panel.scale_dtype == "f16":
        assert_same_bits(scales, scales.astype(np.float16).astype(np.float32))
    whole = codes.astype(np.int64) if panel.table is None else np.array(panel.table)[codes]
    steps = (whole - panel.offset).reshape(*scales.shape, panel.group)
    value = scales[..., None] * steps.astype(np.float32)
    if minimums is None:
        assert_same_bits(value.reshape(codes.shape), expected(item, blocks))
        return
    # A fused multiply-add rounds once where decode rounds twice: one unit of the larger part.
    exact = scales[..., None].astype(np.float64) * steps + minimums[..., None]
    unit = np.spacing(np.maximum(np.abs(value), np.abs(minimums[..., None])))
    assert (np.abs(exact.reshape(codes.shape) - expected(item, blocks)) <= unit.reshape(codes.shape)).all()


PANELS = {
    "Q4_0": (4, 32, 8, "f16", False),
    "Q4_1": (4, 32, 0, "f16", True),
    "Q4_K": (4, 32, 0, "f32", True),
    "Q2_K": (4, 16, 0, "f32", True),
    "Q3_K": (4, 16, 4, "f32", False),
    "IQ4_NL": (4, 32, 128, "f16", False),
    "IQ4_XS": (4, 32, 128, "f32", False),
    "Q8_0": (8, 32, 128, "f16", False),
    "Q5_0": (8, 32, 16, "f16", False),
    "Q5_1": (8, 32, 0, "f16", True),
    "Q5_K": (8, 32, 0, "f32", True),
    "Q6_K": (8, 16, 32, "f32", False),
}


@pytest.mark.parametrize("item", BLOCKED, ids=by_name)
def test_panels_are_those_the_native_kernels_are_built_for(item: Format) -> None:
    panel = item.panel
    assert panel is not None
    assert (panel.bits, panel.group, panel.offset, panel.scale_dtype, panel.has_minimum) == PANELS[item.name]
    assert (panel.table is not None) == item.name.startswith("IQ4")


def blocks_to_encode(item: Format, seed: int, kind: str, power: float) -> F32:
    """Blocks whose largest magnitude is 2 ** power."""
    generator = np.random.default_rng(seed)
    shape = (8, item.block)
    normal = generator.normal(size=shape)
    values = {
        "normal": normal,
        "uniform": generator.uniform(-1, 1, shape),
        "positive": generator.uniform(0.7, 1, shape),
        "negative": generator.uniform(-1, -0.9, shape),
        "spike": normal * 0.01 + (generator.random(shape) < 0.02),
        "two": generator.choice([-1.0, 1.0], shape),
        "steps": normal * 2.0 ** generator.integers(-8, 1, shape),
    }[kind]
    peak = np.abs(values).max(axis=1, keepdims=True)
    return np.asarray(values / peak * 2.0**power, dtype=np.float32)


@pytest.mark.parametrize("item", ALL, ids=by_name)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["normal", "uniform", "positive", "negative", "spike", "two", "steps"]),
    power=st.floats(-8, 10),
)
def test_encoding_keeps_its_error_bound(item: Format, seed: int, kind: str, power: float) -> None:
    blocks = blocks_to_encode(item, seed, kind, power)
    encoded = item.encode(blocks)
    assert encoded.dtype == np.uint8
    assert np.array_equal(encoded, item.encode(blocks.copy()))
    error = np.abs(item.decode(encoded) - blocks).max(axis=1)
    assert (error <= item.error_bound * np.abs(blocks).max(axis=1)).all()


@pytest.mark.parametrize("item", BLOCKED, ids=by_name)
def test_the_error_bound_is_not_generous(item: Format) -> None:
    kinds = ["normal", "uniform", "two", "steps", "spike"]
    blocks = np.concatenate([blocks_to_encode(item, seed, kind, 0) for kind in kinds for seed in range(40)])
    error = np.abs(item.decode(item.encode(blocks)) - blocks).max()
    assert error >= item.error_bound * 0.6


# Root-mean-square error over that of normal weights. Encoders of llama.cpp's search reach about
# 0.9 of these; a broken sub-block scale shows as several times more.
RELATIVE_ERROR = {
    **{"Q8_0": 0.006, "Q6_K": 0.02, "Q5_K": 0.04, "Q5_1": 0.045, "Q5_0": 0.05, "Q4_K": 0.085},
    **{"Q4_1": 0.09, "Q4_0": 0.1, "IQ4_NL": 0.09, "IQ4_XS": 0.095, "Q3_K": 0.2, "Q2_K": 0.36},
}


@pytest.mark.parametrize("item", BLOCKED, ids=by_name)
def test_encoding_normal_weights_is_of_the_quality_its_bits_allow(item: Format) -> None:
    weights = np.random.default_rng(5).normal(0, 0.05, (4096, item.block)).astype(np.float32)
    error = item.decode(item.encode(weights)) - weights
    assert np.sqrt((error**2).mean()) / weights.std() <= RELATIVE_ERROR[item.name]


@pytest.mark.parametrize("item", BLOCKED, ids=by_name)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 3e38])
def test_what_a_block_cannot_hold_is_refused(item: Format, bad: float) -> None:
    blocks = np.ones((2, item.block), np.float32)
    blocks[1, 7] = bad
    with pytest.raises(ValueError, match=r"finite|too large"):
        item.encode(blocks)


def test_plain_floats_keep_special_values() -> None:
    special = np.array([[np.inf], [-np.inf], [np.nan], [0.0], [-0.0], [1.0]], np.float32)
    for name in ("F32", "F16", "BF16"):
        assert_same_bits(FORMATS[name].decode(FORMATS[name].encode(special)), special)
    with pytest.raises(ValueError, match="too large"):
        FORMATS["F16"].encode(np.array([[70000.0]], np.float32))


def test_bf16_rounds_to_the_nearest_even() -> None:
    torch_says = {1.00390625: 1.0, 1.01171875: 1.015625, 1.0040: 1.0078125}
    for value, rounded in torch_says.items():
        decoded = FORMATS["BF16"].decode(FORMATS["BF16"].encode(np.array([[value]], np.float32)))
        assert float(decoded[0, 0]) == rounded
