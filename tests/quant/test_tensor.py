"""A tensor's rows and shape agree with its bytes."""

from __future__ import annotations

import numpy as np
import pytest

from pelton.quant import FORMATS, Tensor


def test_rows_are_views_that_decode_to_the_same_values() -> None:
    item = FORMATS["Q4_1"]
    values = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    tensor = Tensor("w", item, (6, 64), item.encode(values.reshape(-1, 32)).reshape(-1))
    part = tensor.rows(2, 5)
    assert part.shape == (3, 64)
    assert np.shares_memory(part.data, tensor.data)
    assert np.array_equal(part.dequantize(), tensor.dequantize()[2:5])


@pytest.mark.parametrize(("shape", "size"), [((2, 32), 39), ((2, 33), 40), ((3, 32), 40)])
def test_bytes_that_do_not_fit_the_shape_are_refused(shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError, match=r"bytes|multiple"):
        Tensor("w", FORMATS["Q4_1"], shape, np.zeros(size, np.uint8))
