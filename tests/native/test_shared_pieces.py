"""Products of many rows, whose pieces go to whoever is free: whoever took them, the bits are the same."""

from __future__ import annotations

import numpy as np
import pytest

from pelton import _native

from .programs import F32, Building, begin

WIDTH, HIDDEN = 64, 5 * 32
ROWS = (1, 15, 16, 97, 200)  # below and above what is shared, and more than a piece has


def packed(outputs: int, inputs: int, seed: int, pool: _native.ThreadPool) -> _native.PackedWeight:
    rng = np.random.default_rng(seed)
    weight = _native.PackedWeight(outputs, inputs, _native.WeightLayout.block(4, 32, 0, "f16", True, None))
    groups = (outputs, inputs // 32)
    codes = rng.integers(0, 16, (outputs, inputs), dtype=np.uint8)
    scales = rng.uniform(0.01, 0.1, groups).astype(np.float32)
    weight.pack_codes(0, codes, scales, -8 * scales, pool)
    return weight


class Layer:
    """Three products of one input, a gated one, and one that is added to its input; rows of `table`."""

    def __init__(self, threads: int, table: F32) -> None:
        pool = _native.ThreadPool(threads)
        building = Building(pool=pool)
        program = building.program
        x = building.embedded(WIDTH, table)
        blocks = building.value(WIDTH // 32 * 12)
        program.quantize(x, blocks, False)
        sizes = (13, 36 * 16, 3 * 16)
        self.outputs = [building.value(size) for size in sizes]
        parts = [
            (packed(size, WIDTH, seed, pool), None, output)
            for seed, (size, output) in enumerate(zip(sizes, self.outputs, strict=True))
        ]
        program.linear(-1, blocks, parts, -1, False)
        hidden, rounded = building.value(HIDDEN), building.value(HIDDEN // 32 * 12)
        gate, up = (packed(HIDDEN, WIDTH, seed, pool) for seed in (5, 6))
        program.gated_linear(-1, blocks, gate, up, "silu", hidden, rounded)
        added = building.value(WIDTH)
        program.linear(-1, rounded, [(packed(WIDTH, HIDDEN, 7, pool), None, added)], x, False)
        self.outputs += [hidden, added]
        self.program = building.finish(*self.outputs)

    def run(self, tokens: list[int], times: int = 1) -> list[F32]:
        begin(self.program, tokens)
        for _ in range(times):
            self.program.run(0, self.program.num_instructions)
        return [self.program.read(value) for value in self.outputs]


@pytest.fixture(scope="module")
def table() -> F32:
    return np.random.default_rng(0).standard_normal((max(ROWS), WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def alone(table: F32) -> list[F32]:
    """Each row in a pass of its own."""
    layer = Layer(1, table)
    rows = [layer.run([token]) for token in range(len(table))]
    return [np.concatenate(values) for values in zip(*rows, strict=True)]


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("rows", ROWS)
def test_whoever_takes_the_pieces(threads: int, rows: int, table: F32, alone: list[F32]) -> None:
    layer = Layer(threads, table)
    for times in (1, 2):  # the second run of a pass finds all pieces again
        for found, expected in zip(layer.run(list(range(rows)), times), alone, strict=True):
            np.testing.assert_array_equal(found, expected[:rows])
