"""Scales that are a float16 times an integer are held so, and give the bits of float32 scales."""

from __future__ import annotations

import numpy as np
import pytest

from pelton import _native
from pelton.quant import FORMATS

from .linear_cases import ISAS, POOL, format_weight, pack_unpacked, product, random_rows


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["Q4_K", "Q5_K", "Q6_K"])
def test_scales_in_two_parts_change_no_bit(name: str, isa: str) -> None:
    """A float16 scale times an integer is what the float32 scale was, in fewer bytes."""
    form = FORMATS[name]
    data = form.encode(random_rows(35, 768).reshape(-1, form.block)).reshape(35, -1)
    parts = _native.PackedWeight(35, 768, _native.WeightLayout.gguf(name))
    parts.pack_gguf(0, name, data, POOL)
    whole = pack_unpacked(form, data, 35, 768)
    assert parts.num_bytes < 0.87 * whole.num_bytes
    x = random_rows(31, 768, seed=6)
    for fine in (False, True):
        for rows in (1, 4, 31):
            expected = product(whole, x[:rows], isa, fine=fine)
            np.testing.assert_array_equal(product(parts, x[:rows], isa, fine=fine), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_is_the_same_alone_and_with_any_threads(isa: str) -> None:
    pools = [_native.ThreadPool(threads) for threads in (1, 2, 3)]
    for name in ("Q4_K", "Q5_K", "Q6_K"):
        weight = format_weight(FORMATS[name], 83, 512).packed
        x = random_rows(32, 512, seed=3)
        alone = np.concatenate([product(weight, row[None], isa) for row in x])
        for rows in (2, 5, 9, 12, 13, 32):
            for pool in pools:
                np.testing.assert_array_equal(product(weight, x[:rows], isa, pool), alone[:rows])


def test_what_does_not_fit_raises() -> None:
    with pytest.raises(ValueError, match="multiple of 256"):
        _native.PackedWeight(4, 288, _native.WeightLayout.gguf("Q4_K"))
    weight = _native.PackedWeight(4, 256, _native.WeightLayout.gguf("Q6_K"))
    with pytest.raises(ValueError, match="its file format"):
        weight.pack_codes(0, np.zeros((2, 256), np.uint8), np.zeros((2, 16), np.float32), None, POOL)
