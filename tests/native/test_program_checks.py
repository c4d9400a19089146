"""A program that does not fit together is refused with words when it is finished; it would crash when run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pelton import _native

from .programs import Arena, Building, assert_refused, attend, begin, block_weight, weight

Build = Callable[[Building], object]


def mixture(b: Building, **changed: Any) -> None:
    """Two experts of 16 -> 32 -> 16, all float32; `changed` replaces arguments."""
    routed = b.value(2)
    b.program.route(b.embedded(2), routed, 1, True)
    up, down = weight(32, 16), weight(16, 32)
    arguments: dict[str, Any] = {
        "x": b.embedded(),
        "blocks": -1,
        "routed": routed,
        "y": b.value(),
        "gate": [up, up],
        "up": [up, up],
        "down": [down, down],
        "buffers": [b.value(), -1, b.value(32), -1, b.value()],
        "activation": "silu",
        "top_k": 1,
    }
    b.program.experts(**(arguments | changed))


def gated(
    b: Building,
    gate: _native.PackedWeight,
    up: _native.PackedWeight,
    y: int = 32,
    quantized: int = -1,
) -> None:
    rounded = -1 if quantized < 0 else b.value(quantized)
    b.program.gated_linear(b.embedded(), -1, gate, up, "silu", b.value(y) if y > 0 else -1, rounded)


def linear(
    b: Building,
    packed: _native.PackedWeight,
    x: int = 16,
    y: tuple[int, int] = (16, 0),
    residual: int = -1,
    bias: int = 0,
) -> None:
    numbers = np.zeros(bias, np.float32) if bias else None
    added = -1 if residual < 0 else b.embedded(residual)
    b.program.linear(b.embedded(x), -1, [(packed, numbers, b.value(*y))], added, False)


WRONG: dict[str, tuple[Build, str]] = {
    "embed: width": (
        lambda b: b.program.embed(b.value(16), weight(4, 4096), 1.0, False),
        "embed: the output is 16 wide, not 4096",
    ),
    "embed: rows": (
        lambda b: b.program.embed(b.value(16, 1), weight(4, 16), 1.0, False),
        "embed: the output covers row set 1, not 0",
    ),
    "norm: output": (
        lambda b: b.program.norm(b.embedded(), b.value(8), None, None, 16, 1e-5, False),
        "rms_norm: the output is 8 wide",
    ),
    "norm: group": (
        lambda b: b.program.norm(b.embedded(), b.value(), None, None, 5, 1e-5, True),
        "layer_norm: a row does not split into groups",
    ),
    "norm: weight": (
        lambda b: b.program.norm(b.embedded(), b.value(), np.ones(8, np.float32), None, 16, 1e-5, False),
        "a weight or bias has the width",
    ),
    "add: second": (
        lambda b: b.program.elementwise("add", b.embedded(), b.embedded(8), b.value()),
        "add: the second input is 8 wide",
    ),
    "add: one": (
        lambda b: b.program.elementwise("add", b.embedded(), -1, b.value()),
        "add: the second input is missing",
    ),
    "scale: two": (
        lambda b: b.program.elementwise("scale", b.embedded(), b.embedded(), b.value()),
        "scale: there is one input too many",
    ),
    "scale: output": (
        lambda b: b.program.elementwise("scale", b.embedded(), -1, b.value(8)),
        "scale: the output is 8 wide",
    ),
    "rope: heads": (
        lambda b: b.program.rope(b.embedded(), b.value(), _native.RopeSpec(12, [0.1], 1.0, False)),
        "rope: a row does not split into heads",
    ),
    "quantize: narrow": (
        lambda b: b.program.quantize(b.embedded(16), b.value(12), False),
        "quantize: activations are rounded in blocks of 32",
    ),
    "quantize: output": (
        lambda b: b.program.quantize(b.embedded(64), b.value(12), False),
        "quantize: the output is 12 wide, not 24",
    ),
    "select: rows": (
        lambda b: b.program.select(select_of(b, 1), b.value(16, 1)),
        "select_rows: x covers row set 1, not 0",
    ),
    "scatter: part": (
        lambda b: b.program.scatter(b.embedded(), select_of(b, 1, 8), b.value()),
        "scatter_rows: the whole is 16 wide, not 8",
    ),
    "route: top_k": (
        lambda b: b.program.route(b.embedded(), b.value(), 17, True),
        "route: a row has 1 to all experts",
    ),
    "linear: no x": (
        lambda b: b.program.linear(-1, -1, [(weight(16, 16), None, b.value())], -1, False),
        "linear: the input is missing",
    ),
    "linear: x": (lambda b: linear(b, weight(16, 4096)), "linear: the input is 16 wide, not 4096"),
    "linear: blocks": (
        lambda b: linear(b, block_weight(16, 32), x=32),
        "linear: the rounded input is missing",
    ),
    "linear: output": (lambda b: linear(b, weight(32, 16)), "linear: the output is 16 wide, not 32"),
    "linear: rows": (
        lambda b: linear(b, weight(16, 16), y=(16, 1)),
        "linear: the input covers row set 0, not 1",
    ),
    "linear: bias": (lambda b: linear(b, weight(16, 16), bias=8), "linear: a bias is as wide"),
    "linear: residual": (
        lambda b: linear(b, weight(16, 16), residual=8),
        "linear_add: the residual is 8 wide",
    ),
    "linear: two residuals": (
        lambda b: b.program.linear(
            b.embedded(), -1, [(weight(16, 16), None, b.value()) for _ in range(2)], b.embedded(), False
        ),
        "a residual is added to one product",
    ),
    "gated: up": (lambda b: gated(b, weight(32, 16), weight(64, 16)), "gate and up differ in outputs"),
    "gated: up's inputs": (lambda b: gated(b, weight(32, 16), weight(32, 64)), "16 wide, not 64"),
    "gated: nothing": (lambda b: gated(b, weight(32, 16), weight(32, 16), y=-1), "the output is missing"),
    "gated: output": (
        lambda b: gated(b, weight(32, 16), weight(32, 16), y=8),
        "gated_linear: the output is 8 wide",
    ),
    "gated: rounded": (
        lambda b: gated(b, weight(32, 16), weight(32, 16), quantized=24),
        "gated_linear: the rounded output is 24 wide, not 12",
    ),
    "experts: lists": (lambda b: mixture(b, up=[weight(32, 16)]), "experts: every expert has a gate"),
    "experts: routed": (
        lambda b: mixture(b, routed=b.embedded(4096)),
        "the routed weights is 4096 wide, not 2",
    ),
    "experts: None": (lambda b: mixture(b, down=[weight(16, 32), None]), "experts: a weight is missing"),
    "experts: shapes": (
        lambda b: mixture(b, gate=[weight(32, 16), weight(64, 16)]),
        "experts: experts differ in shape",
    ),
    "experts: down": (
        lambda b: mixture(b, down=[weight(16, 32), weight(32, 32)]),
        "experts: a down weight does not fit",
    ),
    "experts: rounded": (
        lambda b: mixture(b, down=[block_weight(16, 32)] * 2),
        "experts: the rounded hidden values are missing",
    ),
    "experts: hidden": (
        lambda b: mixture(b, buffers=[b.value(), -1, -1, -1, b.value()]),
        "experts: the hidden values are missing",
    ),
    "experts: top_k": (lambda b: mixture(b, top_k=3), "experts: a row has 1 to all experts"),
    "experts: buffers": (lambda b: mixture(b, top_k=2), "experts: the gathered input is 16 wide, not 32"),
    "experts: gathered": (
        lambda b: mixture(b, buffers=[-1, -1, b.value(32), -1, b.value()]),
        "experts: the input is missing",
    ),
    "attend: q": (lambda b: attend(b, heads=2), "attend: q is 16 wide, not 32"),
    "attend: k": (lambda b: attend(b, widths=(16, 8, 16, 16)), "attend: k is 8 wide, not 16"),
    "attend: v": (lambda b: attend(b, widths=(16, 16, 8, 16)), "attend: v is 8 wide, not 16"),
    "attend: output": (lambda b: attend(b, widths=(16, 16, 16, 8)), "attend: the output is 8 wide"),
    "attend: rows": (lambda b: attend(b, row_set=7), "attend: q covers row set 0, not 7"),
    "attend: some keys": (lambda b: attend_of(b, 1, 1, 0), "attend: k covers row set 1, not 0"),
    "attend: some values": (lambda b: attend_of(b, 1, 0, 1), "attend: v covers row set 1, not 0"),
    "attend: other queries": (lambda b: attend_of(b, 2, 0, 0), "attend: q covers row set 2, not 1"),
    "attend: no heads": (lambda b: attend(b, kv_heads=0), "query heads must divide"),
    "attend: fewer heads": (
        lambda b: attend(b, kv_heads=2, widths=(16, 32, 32, 16)),
        "query heads must divide",
    ),
    "attend: odd heads": (
        lambda b: attend(b, heads=3, kv_heads=2, widths=(48, 32, 32, 48)),
        "query heads must divide",
    ),
    "attend: layer": (lambda b: attend(b, kv_layer=-1), "attend: a window or layer is negative"),
    "attend: rope": (
        lambda b: attend(b, rope=_native.RopeSpec(4096, [0.1] * 2048, 1.0, False)),
        "attend: rope turns heads of another size",
    ),
}


def attend_of(b: Building, q: int, k: int, v: int) -> None:
    """An attention of the queries of row set 1, over inputs of these row sets."""
    q, k, v = (b.embedded() if rows == 0 else select_of(b, rows) for rows in (q, k, v))
    b.program.attend(*(q, k, v, b.value(16, 1)), 0, 1, 1, 16, 1, 1.0, 0, 0.0, None, None, False)


def select_of(b: Building, row_set: int, width: int = 16) -> int:
    y = b.value(width, row_set)
    b.program.select(b.embedded(width), y)
    return y


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named(case: str) -> None:
    assert_refused(*WRONG[case])


def test_what_fits_is_taken() -> None:
    building = Building()
    mixture(building)
    gated(building, weight(32, 16), weight(32, 16), quantized=12)
    linear(building, weight(16, 16), residual=16, bias=16)
    attend(building, heads=4, kv_heads=2, widths=(64, 32, 32, 64))
    program = building.finish()
    assert len(program.describe()) == program.num_instructions


def test_a_value_is_written_once_and_before_it_is_read() -> None:
    twice = Building()
    y = twice.embedded()
    twice.program.embed(y, weight(4, 16), 1.0, False)
    with pytest.raises(ValueError, match="embed: writes a value that is written already"):
        twice.finish()
    never = Building()
    never.program.elementwise("scale", never.value(), -1, never.value())
    with pytest.raises(ValueError, match="read before it is written"):
        never.finish()
    unknown = Building()
    unknown.program.elementwise("scale", 77, -1, unknown.value())
    with pytest.raises(ValueError, match="scale: the first input is missing"):
        unknown.finish()


def test_a_missing_weight_of_a_product_is_refused() -> None:
    building = Building()
    x = building.embedded()
    nothing: Any = None
    with pytest.raises(ValueError, match="a weight is missing"):
        building.program.linear(x, -1, [(nothing, None, building.value())], -1, False)
    with pytest.raises(ValueError, match="a weight is missing"):
        _native.stream_seconds([nothing], 1, _native.WeightReading.usual(), building.pool)


def test_a_program_grows_only_until_it_is_finished() -> None:
    building = Building()
    y = building.embedded()
    with pytest.raises(ValueError, match="not finished"):
        building.program.describe()
    with pytest.raises(ValueError, match="not finished"):
        building.program.set_trace(True)
    program = building.finish(y)
    for late in (lambda: building.value(), lambda: program.embed(y, weight(4, 16), 1.0, False)):
        with pytest.raises(ValueError, match="finished already"):
            late()
    begin(program, [1])
    program.run(0, 1)


def test_nothing_is_read_before_a_pass_has_begun() -> None:
    building = Building()
    y = attend(building, wants_mass=True)
    program = building.finish(y)
    for early in (
        lambda: program.read(y),
        lambda: program.view(y),
        lambda: program.write(y, np.zeros((1, 16), np.float32)),
        lambda: program.mass(0),
        lambda: program.run(0, 1),
    ):
        with pytest.raises(ValueError, match="no forward pass has begun"):
            early()
    begin(program, [1])
    with pytest.raises(ValueError, match="no such attention mass"):
        program.mass(1)


@pytest.mark.parametrize("layer", [1, 100_000_000])
def test_an_arena_of_too_few_layers_is_refused(layer: int) -> None:
    building = Building()
    program = building.finish(attend(building, kv_layer=layer))
    with pytest.raises(ValueError, match="fewer layers"):
        begin(program, [1], arrays=Arena(layers=layer % 7).arrays())


def test_positions_end_where_float32_counts_exactly() -> None:
    building = Building()
    program = building.finish(building.embedded())
    begin(program, [1], context=2**24 - 1)
    for context in (2**24, 2**31 - 1):
        with pytest.raises(ValueError, match=r"at most 2\^24 positions"):
            begin_far(program, context)


def begin_far(program: _native.Program, context: int) -> None:
    """Without a table that long: the bound is checked first."""
    one = np.array([context], np.int32)
    zero, parent, ends = np.zeros(1, np.int32), np.array([-1], np.int32), np.array([0, 1], np.int32)
    program.begin(zero, one, one, parent, ends, one, zero, np.zeros((1, 1), np.int32), [], *Arena().arrays())
