"""Products with packed weights against NumPy, and law 2: a row's bits do not depend on its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pelton import _native
from pelton.errors import KernelUnsupportedError
from pelton.quant import FORMATS, Format
from pelton.quant.format import F32, U8

ISAS = _native.isa_levels()
POOL = _native.ThreadPool(1)
EPSILON = float(np.finfo(np.float32).eps)
LAYOUTS = [
    (bits, group, scale_dtype, has_minimum, has_table)
    for bits, has_table in ((4, False), (4, True), (8, False))
    for group in (16, 32)
    for scale_dtype in ("f16", "f32")
    for has_minimum in (False, True)
]
BLOCK = np.dtype(
    [("codes", "i1", 32), ("scales", "f4", 2), ("scaled_sum", "f4"), ("half_sums", "i2", 2)], align=False
)


@dataclass(frozen=True)
class Weight:
    """`values` [N, K] are what the packed weight means; `size` bounds the terms they are summed from."""

    packed: _native.PackedWeight
    values: F32
    size: F32


def random_rows(rows: int, width: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal((rows, width), dtype=np.float32)


def block_weight(layout: tuple[int, int, str, bool, bool], outputs: int, inputs: int) -> Weight:
    bits, group, scale_dtype, has_minimum, has_table = layout
    random = np.random.default_rng(outputs * 1000 + inputs)
    codes = random.integers(0, 1 << bits, (outputs, inputs), dtype=np.uint8)
    table = tuple(int(t) for t in random.integers(0, 256, 16)) if has_table else None
    offset = 0 if has_minimum else 8 if bits == 4 and not has_table else 128
    scales, minimums = random.standard_normal((2, outputs, inputs // group), dtype=np.float32) * 0.1
    if scale_dtype == "f16":
        scales, minimums = (a.astype(np.float16).astype(np.float32) for a in (scales, minimums))
    packed = _native.PackedWeight(
        outputs, inputs, _native.WeightLayout.block(bits, group, offset, scale_dtype, has_minimum, table)
    )
    packed.pack_codes(0, codes, scales, minimums if has_minimum else None, POOL)
    meant = codes if table is None else np.array(table, np.uint8)[codes]
    scaled = np.repeat(scales, group, axis=1) * (meant.astype(np.float32) - np.float32(offset))
    added = np.repeat(minimums, group, axis=1) if has_minimum else np.zeros_like(scaled)
    return Weight(packed, scaled + added, np.abs(scaled) + np.abs(added))


def float_weight(dtype: str, outputs: int, inputs: int) -> Weight:
    return format_weight(FORMATS[dtype], outputs, inputs)


def format_weight(form: Format, outputs: int, inputs: int) -> Weight:
    """A weight of a file format, packed from its bytes where the core reads them, else through `unpack`."""
    random = random_rows(outputs, inputs, seed=outputs + inputs)
    data = form.encode(random.reshape(-1, form.block)).reshape(outputs, -1)
    values = form.decode(data.reshape(-1, form.block_bytes)).reshape(outputs, inputs)
    if form.panel is None:
        packed = _native.PackedWeight(outputs, inputs, _native.WeightLayout.floats(form.name))
        packed.pack_floats(0, data, POOL)
        return Weight(packed, values, np.abs(values))
    if _native.reads_gguf(form.name):
        packed = _native.PackedWeight(outputs, inputs, _native.WeightLayout.gguf(form.name))
        packed.pack_gguf(0, form.name, data, POOL)
    else:
        packed = pack_unpacked(form, data, outputs, inputs)
    return Weight(packed, values, np.abs(values) + np.abs(values).max())


def pack_unpacked(form: Format, data: U8, outputs: int, inputs: int) -> _native.PackedWeight:
    panel, unpack = form.panel, form.unpack
    assert panel is not None
    assert unpack is not None
    layout = _native.WeightLayout.block(
        panel.bits, panel.group, panel.offset, panel.scale_dtype, panel.has_minimum, panel.table
    )
    packed = _native.PackedWeight(outputs, inputs, layout)
    codes, scales, minimums = unpack(data.reshape(-1, form.block_bytes))
    packed.pack_codes(
        0,
        codes.reshape(outputs, inputs),
        scales.reshape(outputs, -1),
        None if minimums is None else minimums.reshape(outputs, -1),
        POOL,
    )
    return packed


def product(
    weight: _native.PackedWeight,
    x: F32,
    isa: str,
    pool: _native.ThreadPool = POOL,
    fine: bool = False,
    as_intel: bool = False,
) -> F32:
    y = np.full((len(x), weight.outputs), np.nan, np.float32)
    _native.linear(weight, x, y, None, False, pool, isa, fine, as_intel)
    return y


def quantized(x: F32, isa: str, fine: bool = False) -> F32:
    """The activations that the integer kernels really multiply, [rows, width]."""
    blocks = _native.quantize(x, isa, fine).view(BLOCK)
    values: F32 = blocks["codes"].reshape(*blocks.shape, 2, 16) * blocks["scales"][..., None]
    return values.reshape(x.shape)


def multiplied(x: F32, name: str, isa: str) -> F32:
    """What products of float activations with weights of format `name` really multiply, [rows, width]."""
    if FORMATS[name].panel is not None:
        return quantized(x, isa)
    if name != "BF16" or isa != "avx512_bf16":
        return x
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.asarray(rounded.view(np.float32))


def assert_product(weight: Weight, x: F32, used: F32, isa: str, fine: bool = False) -> None:
    """Each output within the rounding error of one float32 sum of `inputs` terms."""
    exact = used.astype(np.float64) @ weight.values.astype(np.float64).T
    terms = np.abs(used).astype(np.float64) @ weight.size.astype(np.float64).T
    error = np.abs(product(weight.packed, x, isa, fine=fine) - exact)
    assert np.all(error <= EPSILON * (x.shape[1] + 8) * terms)


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
    data = random.integers(0, 256, (21, form.row_bytes(512)), dtype=np.uint8)
    native = _native.PackedWeight(21, 512, _native.WeightLayout.gguf(name))
    native.pack_gguf(0, name, data, _native.ThreadPool(3))
    rows = np.arange(21, dtype=np.int64)
    with np.errstate(all="ignore"):  # random bytes hold scales that are NaN or overflow
        expected = pack_unpacked(form, data, 21, 512).unpack_rows(rows)
    np.testing.assert_array_equal(native.unpack_rows(rows), expected)


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


# Law 2


def law_weights() -> list[Weight]:
    blocks = [
        format_weight(FORMATS[name], 83, 256) for name in ("Q4_1", "Q4_0", "Q8_0", "Q6_K", "Q2_K", "IQ4_XS")
    ]
    floats = [float_weight(dtype, 83, 131) for dtype in ("F32", "F16", "BF16")]
    return [*blocks, *floats, float_weight("BF16", 83, 4099)]  # the last runs in groups of four panels


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_is_the_same_alone_in_any_batch_and_with_any_threads(isa: str) -> None:
    pools = [_native.ThreadPool(threads) for threads in (1, 2, 3, 4)]
    for weight in law_weights():
        x = random_rows(32, weight.packed.inputs, seed=3)
        alone = np.concatenate([product(weight.packed, x[t : t + 1], isa) for t in range(32)])
        for rows in (2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 20, 25, 32):
            for pool in pools:
                together = product(weight.packed, x[:rows], isa, pool)
                np.testing.assert_array_equal(together.view(np.uint32), alone[:rows].view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("fine", [False, True], ids=["coarse", "fine"])
def test_what_is_done_otherwise_on_intel_gives_the_same_bits(isa: str, fine: bool) -> None:
    """One row reads four panels at once; many share unpacked codes, of two slices and in two chunks."""
    weights = [block_weight(layout, 83, 256) for layout in LAYOUTS]
    weights += [format_weight(FORMATS[name], 40, 1024) for name in ("Q4_1", "Q4_K", "Q6_K", "IQ4_XS")]
    for weight in weights:
        x = random_rows(100, weight.packed.inputs, seed=6)
        for rows in (1, 2, 13, 14, 18, 25, 100):
            apart = product(weight.packed, x[:rows], isa, fine=fine)
            once = product(weight.packed, x[:rows], isa, fine=fine, as_intel=True)
            np.testing.assert_array_equal(once.view(np.uint32), apart.view(np.uint32))


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa not in ("generic", "avx2")])
def test_levels_that_fuse_multiply_and_add_agree_to_the_bit(isa: str) -> None:
    """Integer sums are exact and floats are added in one order; bfloat16 dot products have their own."""
    blocks = [block_weight(layout, 83, 256) for layout in LAYOUTS]
    for weight in (*blocks, *law_weights()[:-2]):
        x = random_rows(13, weight.packed.inputs, seed=4)
        for fine in (False, True):
            expected = product(weight.packed, x, "avx2", fine=fine)
            np.testing.assert_array_equal(product(weight.packed, x, isa, fine=fine), expected)
    for dense in law_weights()[-2:]:
        x = multiplied(random_rows(13, dense.packed.inputs, seed=4), "BF16", "avx512_bf16")
        found, expected = product(dense.packed, x, isa), product(dense.packed, x, "avx2")
        same = np.array_equal(found.view(np.uint32), expected.view(np.uint32))
        assert same == (isa != "avx512_bf16")  # pairs are added odd input first


def input_slice(weight: Weight, start: int, end: int) -> _native.PackedWeight:
    part = np.ascontiguousarray(weight.values[:, start:end])
    packed = _native.PackedWeight(len(part), end - start, _native.WeightLayout.floats("F32"))
    packed.pack_floats(0, part.view(np.uint8), POOL)
    return packed


@pytest.mark.parametrize("isa", ISAS)
def test_the_law_test_catches_a_sum_split_by_batch_size(isa: str) -> None:
    """What a kernel does that halves the inputs for large batches: the same sum, other bits."""
    weight = float_weight("F32", 83, 256)
    halves = [input_slice(weight, 0, 128), input_slice(weight, 128, 256)]
    x = random_rows(16, 256, seed=3)
    alone = product(weight.packed, x, isa)
    split = product(halves[0], np.ascontiguousarray(x[:, :128]), isa) + product(
        halves[1], np.ascontiguousarray(x[:, 128:]), isa
    )
    np.testing.assert_allclose(split, alone, atol=1e-3)
    assert np.any(split.view(np.uint32) != alone.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_row_stays_alone(bad: float, isa: str) -> None:
    for weight in law_weights():
        x = random_rows(14, weight.packed.inputs)
        healthy = product(weight.packed, x, isa)
        x[5, 17] = bad
        broken = product(weight.packed, x, isa)
        assert not np.any(np.isfinite(broken[5]))
        others = np.arange(14) != 5
        np.testing.assert_array_equal(broken[others], healthy[others])


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


def test_quantized_activations_are_near_and_the_same_on_every_level() -> None:
    x = random_rows(7, 96) * np.float32(10.0) ** np.arange(-3, 4, dtype=np.float32)[:, None]
    x[0, :32] = 0.0
    x[1, 32:64] = 1e-38
    blocks = _native.quantize(x, ISAS[0]).view(BLOCK)
    for isa in ISAS[1:]:
        np.testing.assert_array_equal(_native.quantize(x, isa), blocks.view(np.uint8))
    largest = np.abs(x.reshape(7, 3, 32)).max(axis=2)
    kept = np.where(largest > 1e-30, largest, 0.0)
    np.testing.assert_array_equal(blocks["scales"], np.repeat(kept[..., None] / 127, 2, 2).astype(np.float32))
    assert np.all(np.abs(quantized(x, ISAS[0]) - x) <= np.repeat(kept, 32, axis=1) / 127 * 0.5001 + 1e-37)
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
    np.testing.assert_array_equal(blocks["scales"], (halves / 127).astype(np.float32))
    error = np.abs(quantized(x, ISAS[0], True) - x)[[0, 2, 3, 4]]
    assert np.all(error <= np.repeat(halves.reshape(5, 4), 16, axis=1)[[0, 2, 3, 4]] / 127 * 0.5001)


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("width", [32, 128, 160, 416])
def test_blocks_that_are_rounded_together_are_those_that_are_rounded_alone(width: int, fine: bool) -> None:
    """Ordinary blocks beside such as hold a NaN, an infinity, nothing or next to nothing."""
    x = random_rows(40, width, seed=width)
    strange = np.random.default_rng(width).integers(0, x.size, 60)
    x.reshape(-1)[strange] = np.resize(np.array([np.nan, np.inf, -np.inf, 1e30, -0.0], np.float32), 60)
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
