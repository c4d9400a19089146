"""Products with packed weights against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from pelton import _native
from pelton.errors import KernelUnsupportedError
from pelton.quant import FORMATS
from pelton.quant.format import F32

from .linear_cases import (
    BLOCK,
    ISAS,
    LAYOUTS,
    POOL,
    assert_product,
    block_weight,
    float_weight,
    format_weight,
    law_weights,
    multiplied,
    pack_unpacked,
    product,
    quantized,
    random_rows,
)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("fine", [False, True], ids=["coarse", "fine"])
def test_block_products_match_numpy(layout: tuple[int, int, str, bool, bool], isa: str, fine: bool) -> None:
    for outputs, inputs, rows in ((1, 32, 1), (15, 64, 2), (16, 96, 3), (17, 128, 17), (33, 256, 13)):
        weight = block_weight(layout, outputs, inputs)
        x = random_rows(rows, inputs)
        assert_product(weight, x, quantized(x, isa, fine), isa, fine)
        together = product(weight.packed, x, isa, fine=fine)
        alone = [product(weight.packed, row[None], isa, fine=fine) for row in x]
        np.testing.assert_array_equal(np.concatenate(alone), together)


@pytest.mark.parametrize("isa", ISAS)
def test_products_match_numpy_for_every_remainder(isa: str) -> None:
    for outputs in range(1, 34):
        block, dense = block_weight(LAYOUTS[1], outputs, 64), float_weight("BF16", outputs, 33)
        rows = outputs % 17 + 1
        x = random_rows(rows, 64)
        assert_product(block, x, quantized(x, isa), isa)
        odd = random_rows(rows, 33)
        assert_product(dense, odd, multiplied(odd, "BF16", isa), isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_float_products_match_numpy(dtype: str, isa: str) -> None:
    for outputs, inputs, rows in ((1, 1, 1), (15, 7, 2), (65, 40, 17), (130, 129, 5), (16, 1049, 9)):
        x = random_rows(rows, inputs)
        assert_product(float_weight(dtype, outputs, inputs), x, multiplied(x, dtype, isa), isa)


@pytest.mark.parametrize("name", FORMATS)
def test_packing_keeps_every_value_of_a_format(name: str) -> None:
    weight = format_weight(FORMATS[name], 19, 256)
    rows = np.array([18, 0, 7, 7], np.int64)
    np.testing.assert_array_equal(weight.packed.unpack_rows(rows), weight.values[rows])


@pytest.mark.parametrize("name", [name for name in FORMATS if _native.reads_gguf(name)])
def test_reading_blocks_natively_equals_unpacking_in_python(name: str) -> None:
    form = FORMATS[name]
    random = np.random.default_rng(5)
    inputs = 1280  # more than the panel's rows are filled with in turn
    data = random.integers(0, 256, (21, form.row_bytes(inputs)), dtype=np.uint8)
    native = _native.PackedWeight(21, inputs, _native.WeightLayout.gguf(name))
    native.pack_gguf(0, name, data, _native.ThreadPool(3))
    rows = np.arange(21, dtype=np.int64)
    with np.errstate(all="ignore"):  # random bytes hold scales that are NaN or overflow
        expected = pack_unpacked(form, data, 21, inputs).unpack_rows(rows)
    np.testing.assert_array_equal(native.unpack_rows(rows), expected)


@pytest.mark.parametrize("inputs", [1, 7, 1023, 1024, 1025, 2051])
@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_floats_of_any_width_are_packed_whole(name: str, inputs: int) -> None:
    form = FORMATS[name]
    data = form.encode(random_rows(19, inputs).reshape(-1, form.block)).reshape(19, -1)
    packed = _native.PackedWeight(19, inputs, _native.WeightLayout.floats(name))
    packed.pack_floats(0, data, _native.ThreadPool(2))
    found = packed.unpack_rows(np.arange(19, dtype=np.int64))
    expected = form.decode(data.reshape(-1, form.block_bytes)).reshape(19, inputs)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_format_products_match_numpy(name: str) -> None:
    weight = format_weight(FORMATS[name], 40, 512)
    x = random_rows(6, 512)
    for isa in ISAS:
        assert_product(weight, x, multiplied(x, name, isa), isa)


def test_packing_in_slices_equals_packing_at_once() -> None:
    form = FORMATS["Q4_1"]
    data = form.encode(random_rows(50, 64).reshape(-1, 32)).reshape(50, -1)
    whole, parts = (_native.PackedWeight(50, 64, _native.WeightLayout.gguf("Q4_1")) for _ in range(2))
    whole.pack_gguf(0, "Q4_1", data, POOL)
    for start, end in ((20, 37), (0, 20), (37, 50)):
        parts.pack_gguf(start, "Q4_1", data[start:end], _native.ThreadPool(2))
    rows = np.arange(50, dtype=np.int64)
    np.testing.assert_array_equal(parts.unpack_rows(rows), whole.unpack_rows(rows))


def test_weights_beside_each_other_are_what_they_are_alone() -> None:
    memory = _native.WeightMemory()
    layout = _native.WeightLayout.gguf("Q8_0")
    # Of 2,176 to 3.5 million bytes each, and one that has memory of its own: more than one piece in all.
    shapes = [(1, 64), (50, 64), *((1600, 2048),) * 10, (4096, 1024), (3, 64)]
    rows = [np.arange(0, outputs, 7, dtype=np.int64) for outputs, _ in shapes]

    def packed(beside: _native.WeightMemory | None, number: int) -> _native.PackedWeight:
        outputs, inputs = shapes[number]
        weight = _native.PackedWeight(outputs, inputs, layout, beside)
        data = np.random.default_rng(number).integers(0, 99, (outputs, inputs // 32 * 34), np.uint8)
        weight.pack_gguf(0, "Q8_0", data, POOL)
        return weight

    kept = [packed(memory, number) for number in range(len(shapes))]
    del memory
    for number, weight in enumerate(kept):
        alone = packed(None, number)
        assert weight.num_bytes == alone.num_bytes
        np.testing.assert_array_equal(weight.unpack_rows(rows[number]), alone.unpack_rows(rows[number]))


# Outputs


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_is_written_outside_the_outputs(isa: str) -> None:
    for weight in law_weights():
        for rows in (1, 2, 4, 6, 8, 12, 13):
            x = random_rows(rows, weight.packed.inputs)
            guarded = np.full((rows + 2, weight.packed.outputs + 40), 7.5, np.float32)
            inner = guarded[1:-1, 20 : 20 + weight.packed.outputs]
            _native.linear(weight.packed, x, inner, None, False, _native.ThreadPool(2), isa)
            np.testing.assert_array_equal(inner, product(weight.packed, x, isa))
            inner[:] = 7.5
            assert np.all(guarded == 7.5)


@pytest.mark.parametrize("isa", ISAS)
def test_bias_is_added_to_the_product_and_the_sum_to_the_old_outputs(isa: str) -> None:
    for weight in law_weights():
        x, bias = random_rows(5, weight.packed.inputs), random_rows(1, 83, seed=9)[0]
        old = random_rows(5, 83, seed=8)
        y = old.copy()
        _native.linear(weight.packed, x, y, bias, True, POOL, isa)
        np.testing.assert_array_equal(y, old + (product(weight.packed, x, isa) + bias))


# Activations


def steps(largest: F32) -> F32:
    """Of 127 to `largest`, the fraction rounded up to three bits; what no step is small or large enough for
    has the least one, or -infinity."""
    bits = (largest * np.float32(1 / 127)).view(np.uint32)
    found = ((bits + np.uint32(0xFFFFF)) & ~np.uint32(0xFFFFF)).view(np.float32)
    found = np.where(largest < 2.0**-80, np.float32(2.0**-87), found)
    return np.asarray(np.where(largest < 2.0**100, found, np.float32(-np.inf)))


def test_quantized_activations_are_near_and_the_same_on_every_level() -> None:
    x = random_rows(7, 96) * np.float32(10.0) ** np.arange(-3, 4, dtype=np.float32)[:, None]
    x[0, :32] = 0.0
    x[1, 32:64] = 1e-38
    blocks = _native.quantize(x, ISAS[0]).view(BLOCK)
    for isa in ISAS[1:]:
        np.testing.assert_array_equal(_native.quantize(x, isa), blocks.view(np.uint8))
    largest = np.abs(x.reshape(7, 3, 32)).max(axis=2)
    np.testing.assert_array_equal(blocks["scales"], np.repeat(steps(largest)[..., None], 2, 2))
    assert np.all(steps(largest) <= np.maximum(largest / 127 * 1.1251, 2.0**-87))
    assert np.all(np.abs(quantized(x, ISAS[0]) - x) <= np.repeat(steps(largest), 32, axis=1) * 0.5001)
    sums = blocks["codes"].astype(np.int32).reshape(7, 3, 2, 16).sum(axis=3)
    np.testing.assert_array_equal(blocks["half_sums"], sums)
    totals = sums.sum(axis=2).astype(np.float32)
    np.testing.assert_array_equal(blocks["scaled_sum"], blocks["scales"][..., 0] * totals)


def test_fine_activations_have_a_scale_for_each_half() -> None:
    x = random_rows(5, 64)
    x[:, :16] *= np.float32(1e-3)
    x[1, 16:32] = np.nan
    blocks = _native.quantize(x, ISAS[0], True).view(BLOCK)
    for isa in ISAS[1:]:
        np.testing.assert_array_equal(_native.quantize(x, isa, True), blocks.view(np.uint8))
    halves = np.abs(x.reshape(5, 2, 2, 16)).max(axis=3)
    np.testing.assert_array_equal(blocks["scales"], steps(halves))
    error = np.abs(quantized(x, ISAS[0], True) - x)[[0, 2, 3, 4]]
    assert np.all(error <= np.repeat(steps(halves).reshape(5, 4), 16, axis=1)[[0, 2, 3, 4]] * 0.5001)


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("width", [32, 128, 160, 416])
def test_blocks_that_are_rounded_together_are_those_that_are_rounded_alone(width: int, fine: bool) -> None:
    """Ordinary blocks beside such as hold a NaN, an infinity, nothing or next to nothing."""
    x = random_rows(40, width, seed=width)
    strange = np.random.default_rng(width).integers(0, x.size, 60)
    x.reshape(-1)[strange] = np.resize(np.array([np.nan, np.inf, -np.inf, 1e30, 2e30, -0.0], np.float32), 60)
    x[10:20, : width // 2] = 0.0
    x[20:25] *= np.float32(1e-33)
    rows = _native.quantize(x, ISAS[0], fine)
    for isa in ISAS[1:]:
        np.testing.assert_array_equal(_native.quantize(x, isa, fine), rows)


@pytest.mark.parametrize("isa", ISAS)
def test_extreme_codes_do_not_saturate(isa: str) -> None:
    packed = _native.PackedWeight(16, 256, _native.WeightLayout.block(8, 32, 0, "f32", True))
    scales = np.ones((16, 8), np.float32)
    packed.pack_codes(0, np.full((16, 256), 255, np.uint8), scales, np.zeros_like(scales), POOL)
    y = product(packed, np.full((1, 256), -127.0, np.float32), isa)
    assert np.all(y == -127.0 * 255 * 256)


# Errors


def test_sizes_that_do_not_fit_raise() -> None:
    weight = block_weight(LAYOUTS[0], 17, 64).packed
    x, y = random_rows(2, 64), np.zeros((2, 17), np.float32)
    for bad_x, bad_y in ((x[:, :32].copy(), y), (x[:1], y), (x, y[:, :16].copy()), (x, y.T.copy().T)):
        with pytest.raises(ValueError, match="must be"):
            _native.linear(weight, bad_x, bad_y, None, False, POOL)
    with pytest.raises(TypeError):
        _native.linear(weight, x.astype(np.float64), y, None, False, POOL)
    with pytest.raises(ValueError, match="multiple of 32"):
        _native.PackedWeight(4, 33, _native.WeightLayout.gguf("Q8_0"))
    with pytest.raises(ValueError, match="at least one"):
        _native.PackedWeight(0, 32, _native.WeightLayout.gguf("Q8_0"))
    for outputs, inputs in ((2**50, 2**40), (2**63 - 1, 32), (32, 2**63 - 1)):
        with pytest.raises(ValueError, match="too large"):
            _native.PackedWeight(outputs, inputs, _native.WeightLayout.floats("F32"))
    for narrow in (0, 16, 33):
        with pytest.raises(ValueError, match="blocks of 32"):
            _native.quantize(np.zeros((3, narrow), np.float32))
    with pytest.raises(ValueError, match="outside the weight"):
        weight.unpack_rows(np.array([17], np.int64))
    with pytest.raises(ValueError, match="outside the weight"):
        weight.pack_codes(16, np.zeros((2, 64), np.uint8), np.zeros((2, 4), np.float32), None, POOL)


def test_layouts_without_kernels_are_refused() -> None:
    with pytest.raises(KernelUnsupportedError, match="Q9_9"):
        _native.WeightLayout.gguf("Q9_9")
    with pytest.raises(KernelUnsupportedError, match="F64"):
        _native.WeightLayout.floats("F64")
    for bits, group, offset, minimum in ((5, 32, 0, False), (4, 64, 0, False), (4, 32, 8, True)):
        with pytest.raises(ValueError, match=r"block|bits"):
            _native.WeightLayout.block(bits, group, offset, "f16", minimum)
    for group, minimum, table in ((16, False, None), (32, True, [0] * 16)):
        with pytest.raises(ValueError, match=r"float16 scales are of groups of 32|a table have no minimums"):
            _native.WeightLayout.block(4, group, 0, "f16", minimum, table)
