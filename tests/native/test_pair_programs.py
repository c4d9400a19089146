"""Programs whose weights are in pairs of blocks: what they refuse; rounding on the way is the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pelton import _native

from .linear_cases import POOL, product, random_rows
from .pair_cases import random_weight
from .programs import Building, assert_refused, begin, block_weight, weight

Build = Callable[[Building], object]
PAIRS = random_weight(32, 64, 2).packed  # reads rows of 22 floats


def linear(b: Building, rounded: int) -> None:
    b.program.linear(-1, rounded, [(PAIRS, None, b.value(32))], -1, False)


def gated(b: Building, outputs: int, quantized: int, segment: int) -> None:
    up = weight(outputs, 16)
    b.program.gated_linear(b.embedded(), -1, up, up, "silu", -1, b.value(quantized), segment)


def gated_floats(b: Building, segment: int) -> None:
    up = weight(32, 16)
    b.program.gated_linear(b.embedded(), -1, up, up, "silu", b.value(32), -1, segment)


def experts(b: Building) -> None:
    routed = b.value(1)
    b.program.route(b.embedded(1), routed, 1, True)
    down = [random_weight(64, 32, 2).packed]
    buffers = [b.value(64), b.value(24), -1, b.value(12), b.value(64)]
    b.program.experts(
        b.embedded(64), b.embedded(24), routed, b.value(64), [PAIRS], [PAIRS], down, buffers, "silu", 1
    )


WRONG: dict[str, tuple[Build, str]] = {
    "blocks for pairs": (lambda b: linear(b, b.embedded(24)), "linear: the rounded input is 24 wide, not 22"),
    "no pairs": (lambda b: linear(b, -1), "linear: the rounded input is missing"),
    "pairs for blocks": (
        lambda b: b.program.linear(-1, b.embedded(22), [(block_weight(16, 64), None, b.value())], -1, False),
        "linear: the rounded input is 22 wide, not 24",
    ),
    "quantize: output": (
        lambda b: b.program.quantize(b.embedded(96), b.value(36), False, 2),
        "quantize: the output is 36 wide, not 44",
    ),
    "quantize: segment": (
        lambda b: b.program.quantize(b.embedded(64), b.value(22), False, 10),
        "quantize: a segment has at most 9 pairs",
    ),
    "gated: output": (lambda b: gated(b, 64, 24, 2), "the rounded output is 24 wide, not 22"),
    "gated: segment": (lambda b: gated(b, 576, 198, 9), "a segment is at most as wide as a piece"),
    "gated: segment of nothing": (lambda b: gated_floats(b, 3), "a segment is at most as wide as a piece"),
    "gated: negative segment": (lambda b: gated_floats(b, -1), "a segment is at most as wide as a piece"),
    "experts": (experts, "experts: weights of experts are not in pairs"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named(case: str) -> None:
    assert_refused(*WRONG[case])


def test_a_screened_head_is_not_in_pairs() -> None:
    with pytest.raises(ValueError, match="a screened head is not in pairs"):
        _native.HeadScreen(PAIRS)


@pytest.mark.parametrize("outputs", [96, 128, 352, 1024])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_what_a_gate_rounds_in_pieces_is_what_is_rounded_whole(outputs: int, rows: int) -> None:
    """Whole segments of a row are made by one thread, in one piece."""
    x = random_rows(rows, 32, seed=outputs)
    gate, up = (random_rows(outputs, 32, seed=seed) for seed in (1, 2))
    down = random_weight(48, outputs, 2).packed
    building = Building()
    table, middle, rounded = (
        building.embedded(32, x),
        building.value(outputs),
        building.value(-(-outputs // 64) * 22),
    )
    found = building.value(48)
    gates, ups = weight(outputs, 32, gate), weight(outputs, 32, up)
    building.program.gated_linear(table, -1, gates, ups, "silu", middle, rounded, 2)
    building.program.linear(-1, rounded, [(down, None, found)], -1, False)
    program = building.finish(middle, found)
    begin(program, range(rows))
    program.run(0, program.num_instructions)
    hidden = np.array(program.read(middle))
    np.testing.assert_array_equal(program.read(found), product(down, hidden, "", POOL))
