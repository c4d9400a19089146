"""Parts of a step run on whatever thread is free: more threads than processors give the same bits as one."""

from __future__ import annotations

import numpy as np
import pytest

from pelton.exec.native import NativeExecutor

from ..laws.bench import Bench, random_tokens
from ..tiny import VOCAB, tiny_plan, tiny_weights

LENGTH = 300  # more than one chunk of attention, so that few rows split it over threads


@pytest.mark.parametrize("weight_format", ["F32", "Q4_1"])
@pytest.mark.parametrize("threads", [2, 3, 7, 16])
def test_any_number_of_threads_gives_the_same_bits(threads: int, weight_format: str) -> None:
    weights = tiny_weights(weight_format=weight_format)
    plan, tokens = tiny_plan(weights), random_tokens(LENGTH, 5, VOCAB)
    found = []
    for count in (1, threads):
        executor = NativeExecutor(plan, weights, count)
        bench = Bench(executor)
        alone = [bench.alone(tokens, chunk) for chunk in (LENGTH, 37)]
        turns = bench.among(tokens[:12], 40, 1, 3)  # threads take 41 rows' attention as they come free
        found.append([*alone, bench.alone(tokens[:40], 1), bench.among(tokens[:60], 5, 13, 2), turns])
        executor.close()
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(many.view(np.int32), one.view(np.int32))
