"""Weights of every layout and format, packed, and products with them, for the tests of products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pelton import _native
from pelton.quant import FORMATS, Format
from pelton.quant.format import F32, U8

ISAS = _native.isa_levels()
POOL = _native.ThreadPool(1)
USUAL = _native.WeightReading.usual()
EPSILON = float(np.finfo(np.float32).eps)
LAYOUTS = [
    (bits, group, scale_dtype, has_minimum, has_table)
    for bits, has_table in ((4, False), (4, True), (8, False))
    for group in (16, 32)
    for scale_dtype in ("f16", "f32")
    for has_minimum in (False, True)
    if not (has_table and has_minimum) and (scale_dtype == "f32" or group == 32)
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


def block_weight(
    layout: tuple[int, int, str, bool, bool], outputs: int, inputs: int, strange: bool = False
) -> Weight:
    """strange: a few scales are 0, next to nothing or very large."""
    bits, group, scale_dtype, has_minimum, has_table = layout
    random = np.random.default_rng(outputs * 1000 + inputs)
    codes = random.integers(0, 1 << bits, (outputs, inputs), dtype=np.uint8)
    table = tuple(int(t) for t in random.integers(0, 256, 16)) if has_table else None
    offset = 0 if has_minimum else 8 if bits == 4 and not has_table else 128
    scales, minimums = random.standard_normal((2, outputs, inputs // group), dtype=np.float32) * 0.1
    if strange:
        few = np.array([0.0, -0.0, 6e-8, -6e4, *([1e-38, 3e30] if scale_dtype == "f32" else [])], np.float32)
        at = random.integers(0, scales.size, 9)
        scales.reshape(-1)[at] = np.resize(few, 9)
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
    reading: _native.WeightReading = USUAL,
) -> F32:
    y = np.full((len(x), weight.outputs), np.nan, np.float32)
    _native.linear(weight, x, y, None, False, pool, isa, fine, reading)
    return y


def quantized(x: F32, isa: str, fine: bool = False) -> F32:
    """The activations that the integer kernels really multiply, [rows, width]."""
    blocks = _native.quantize(x, isa, fine).view(BLOCK)
    with np.errstate(invalid="ignore"):  # what is not finite has codes 0 and an infinite scale
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


def law_weights() -> list[Weight]:
    blocks = [
        format_weight(FORMATS[name], 83, 256) for name in ("Q4_1", "Q4_0", "Q8_0", "Q6_K", "Q2_K", "IQ4_XS")
    ]
    floats = [float_weight(dtype, 83, 131) for dtype in ("F32", "F16", "BF16")]
    plain = format_weight(FORMATS["Q4_1"], 83, 416)
    pairs = [Weight(plain.packed.in_pairs(segment, POOL), plain.values, plain.size) for segment in (2, 9)]
    # The last runs in groups of four panels.
    return [*blocks, *pairs, *floats, float_weight("BF16", 83, 4099)]
