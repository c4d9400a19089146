"""Logits of many rows and a large vocabulary go past the caches: the same bits as row by row."""

from __future__ import annotations

import numpy as np
import pytest

from pelton.exec.native import NativeExecutor, available_levels
from pelton.quant import format_named
from pelton.quant.tensor import Tensor

from ..laws.bench import Bench, random_tokens
from ..tiny import HIDDEN, VOCAB, tiny_plan, tiny_weights


def wide_head(width: int, format_name: str) -> Tensor:
    number_format = format_named(format_name)
    values = np.random.default_rng(3).standard_normal((width, HIDDEN)).astype(np.float32)
    data = number_format.encode(values.reshape(-1, number_format.block)).reshape(-1)
    return Tensor("token_embd", number_format, values.shape, data)


@pytest.mark.parametrize("isa", available_levels())
@pytest.mark.parametrize(
    ("width", "weight_format"),
    [(16400, "Q8_0"), (16400, "BF16"), (16400, "F32"), (16393, "Q8_0")],  # the last: rows begin anywhere
)
def test_streamed_logits_are_those_of_single_rows(isa: str, width: int, weight_format: str) -> None:
    weights = {**tiny_weights(), "token_embd": wide_head(width, weight_format)}
    executor = NativeExecutor(tiny_plan(weights), weights, 2, isa)
    bench, tokens = Bench(executor), random_tokens(29, 7, VOCAB)
    alone = bench.alone(tokens, 1)
    assert alone.shape == (29, width)
    for chunk in (11, 12, 29):
        np.testing.assert_array_equal(bench.alone(tokens, chunk).view(np.int32), alone.view(np.int32))
    executor.close()
