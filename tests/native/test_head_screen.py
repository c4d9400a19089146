"""A screened head: what may be the greatest logit is exact to the bit, what is left out cannot be it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pelton import _native
from pelton.exec.native_screen import Screening, principal_directions
from pelton.quant import FORMATS

from .linear_cases import ISAS, format_weight
from .programs import POOL, Building, begin

F32 = NDArray[np.float32]
WIDTH, OUTPUTS = 256, 1003  # neither panels nor threads divide it
NAMES = ("Q8_0", "Q4_1", "Q6_K", "F32", "F16", "BF16")


def inputs_of(count: int, width: int = WIDTH, seed: int = 0, spread: float = 0.3) -> F32:
    """Rows that are long in a few directions, as hidden states are."""
    random = np.random.default_rng(seed)
    along = random.standard_normal((count, 6)) @ random.standard_normal((6, width))
    return (along + spread * random.standard_normal((count, width))).astype(np.float32)


def packed_floats(rows: F32) -> _native.PackedWeight:
    outputs, inputs = rows.shape
    weight = _native.PackedWeight(outputs, inputs, _native.WeightLayout.floats("F32"))
    weight.pack_floats(0, rows.view(np.uint8), POOL)
    return weight


@dataclass
class Head:
    """A program that embeds tokens as rows of `inputs` and multiplies them by a screened weight."""

    weight: _native.PackedWeight
    inputs: F32
    isa: str = ""
    pool: _native.ThreadPool = POOL

    def __post_init__(self) -> None:
        self.screen = _native.HeadScreen(self.weight)
        building = Building(pool=self.pool, isa=self.isa)
        x, blocks = building.embedded(self.weight.inputs, self.inputs), -1
        self.y = building.value(self.weight.outputs)
        floats = self.weight.inputs * self.weight.outputs * 2 <= self.weight.num_bytes
        if not floats:
            blocks = building.value(self.weight.inputs // 32 * 12)
            building.program.quantize(x, blocks, True)
        building.program.screened_linear(x if floats else -1, blocks, self.weight, self.y, True, self.screen)
        self.program = building.finish(self.y)

    def logits(self, tokens: list[int], only_greatest: bool) -> F32:
        begin(self.program, tokens, only_greatest=only_greatest)
        self.program.run(0, self.program.num_instructions)
        return self.program.read(self.y)

    def greatest(self, tokens: list[int]) -> list[int]:
        """After `logits`: what the program says, which is what a look at all logits says."""
        self.logits(tokens, True)
        found = self.program.greatest()
        assert found is not None
        expected = _native.RowSampler(self.pool, self.isa).most_likely(self.logits(tokens, False))
        assert found == expected
        return found

    def prepare(self) -> None:
        """Everything that passes would do one after another."""
        for token in range(_native.SCREEN_SAMPLES):
            self.logits([token % len(self.inputs)], True)
        self.screen.set_directions(principal_directions(self.screen.samples()), self.pool)
        while not self.screen.build(300, self.pool):
            assert not self.screen.ready

    def check(self, tokens: list[int]) -> float:
        """The share of logits that were computed exactly."""
        expected, found = self.logits(tokens, False), self.logits(tokens, True)
        np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
        exact = found != -np.inf
        np.testing.assert_array_equal(found[exact], expected[exact])
        assert self.greatest(tokens) == expected.argmax(axis=1).tolist()
        return float(exact.mean())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NAMES)
def test_the_greatest_is_found_in_every_format(name: str, isa: str) -> None:
    head = Head(format_weight(FORMATS[name], OUTPUTS, WIDTH).packed, inputs_of(300), isa)
    head.prepare()
    assert head.screen.ready
    shares = [head.check([token]) for token in range(128, 300, 9)]
    assert np.median(shares) < 0.25
    for rows in (2, 3, 4):
        head.check(list(range(200, 200 + rows)))
    for rows in (5, 48, 97, 200):  # too many to be screened: all are computed, and none stored
        head.greatest([row % 300 for row in range(rows)])


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["Q8_0", "Q4_1", "BF16", "F32"]),
    st.floats(-8, 8),
    st.floats(0, 3),
)
def test_any_weights_and_inputs(seed: int, name: str, power: float, spread: float) -> None:
    """Also where the directions are of other inputs, and where many outputs are close to the greatest."""
    random = np.random.default_rng(seed)
    form = FORMATS[name]
    rows = random.standard_normal((130, 64)).astype(np.float32)
    rows[40:90] = rows[:50] * (1 + 1e-4 * random.standard_normal((50, 64)))
    data = form.encode(rows.reshape(-1, form.block)).reshape(130, -1)
    if form.panel is None:
        weight = _native.PackedWeight(130, 64, _native.WeightLayout.floats(name))
        weight.pack_floats(0, np.ascontiguousarray(data).view(np.uint8).reshape(130, -1), POOL)
    else:
        weight = _native.PackedWeight(130, 64, _native.WeightLayout.gguf(name))
        weight.pack_gguf(0, name, data, POOL)
    inputs = np.concatenate(
        [inputs_of(40, 64, seed, spread), random.standard_normal((40, 64), dtype=np.float32)]
    )
    head = Head(weight, (inputs * np.float32(2.0**power)).astype(np.float32))
    head.prepare()
    for token in range(0, 80, 7):
        head.check([token])


@pytest.mark.parametrize("threads", [1, 3, 64])  # at last more than panels
def test_any_number_of_threads(threads: int) -> None:
    head = Head(
        format_weight(FORMATS["Q8_0"], OUTPUTS, WIDTH).packed,
        inputs_of(140),
        pool=_native.ThreadPool(threads),
    )
    head.prepare()
    for token in range(128, 140):
        assert head.check([token]) < 1.0


def test_what_is_not_finite_is_computed_as_ever() -> None:
    inputs = inputs_of(140)
    inputs[131, 7], inputs[132, 9], inputs[133] = np.nan, np.inf, 1e30
    head = Head(format_weight(FORMATS["Q8_0"], OUTPUTS, WIDTH).packed, inputs)
    head.prepare()
    for token in (131, 132, 133):
        expected, found = head.logits([token], False), head.logits([token], True)
        np.testing.assert_array_equal(found, expected)
    tokens = [130, 131, 132, 133, 134, 135]
    nothing = [False, True, True, False, False, False]
    assert [found < 0 for found in head.greatest(tokens)] == nothing
    assert [head.greatest([token])[0] < 0 for token in tokens] == nothing


def test_weights_that_are_not_finite_are_not_screened() -> None:
    rows = np.ones((64, WIDTH), np.float32)
    rows[40, 3] = np.inf
    head = Head(packed_floats(rows), inputs_of(4))
    head.prepare()
    assert not head.screen.ready
    head.greatest([1])


def test_a_screen_that_keeps_too_much_rests() -> None:
    """All outputs alike: none can be left out, so the copy is not read for a while."""
    rows = np.ones((640, WIDTH), np.float32) + 1e-3 * np.random.default_rng(0).random(
        (640, WIDTH), np.float32
    )
    head = Head(packed_floats(rows), inputs_of(8))
    head.prepare()
    assert head.screen.ready
    assert head.check([3]) == 1.0
    for _ in range(20):
        head.greatest([3])
    ready = []
    for _ in range(600):
        ready.append(head.screen.ready)
        head.logits([3], True)
    assert not any(ready[:400])
    assert any(ready)


def test_switched_off_everything_is_computed() -> None:
    head = Head(format_weight(FORMATS["Q8_0"], OUTPUTS, WIDTH).packed, inputs_of(140))
    head.prepare()
    assert head.check([5]) < 1.0
    head.screen.switch_on(False)
    head.greatest([5])  # reports what the passes before found
    share = head.screen.share
    for token in (5, 6, 7):
        head.greatest([token])
    assert head.screen.share == share  # nothing was screened since
    head.screen.switch_on(True)
    for token in (5, 6, 7):
        head.greatest([token])
    assert head.screen.share != share


def test_directions_must_be_orthonormal() -> None:
    screen = _native.HeadScreen(format_weight(FORMATS["Q8_0"], 64, WIDTH).packed)
    directions = principal_directions(inputs_of(128))
    np.testing.assert_allclose(directions @ directions.T, np.eye(32), atol=1e-6)
    with pytest.raises(ValueError, match="orthonormal"):
        screen.set_directions(directions * np.float32(1.0001), POOL)
    with pytest.raises(ValueError, match=r"\[32, inputs\]"):
        screen.set_directions(directions[:31], POOL)
    screen.set_directions(directions, POOL)
    with pytest.raises(ValueError, match="once"):
        screen.set_directions(directions, POOL)


def test_a_small_or_odd_head_has_no_screen() -> None:
    weight = format_weight(FORMATS["Q8_0"], 64, WIDTH).packed
    assert Screening(POOL).of(weight) is None
    screening = Screening(POOL, least_bytes=1)
    assert screening.of(weight) is screening.of(weight) is not None
    odd = _native.PackedWeight(64, 33, _native.WeightLayout.floats("F32"))
    assert Screening(POOL, least_bytes=1).of(odd) is None


@pytest.mark.parametrize("isa", ISAS)
def test_ties_infinities_and_rows_of_nothing(isa: str) -> None:
    """Of equal logits the first counts, also across pieces, panels and threads."""
    rows = np.zeros((1003, 32), np.float32)
    for output, place in ((0, 0), (500, 1), (501, 1), (1002, 1), (17, 2), (900, 2)):
        rows[output, place] = 1.0
    rows[:, 6] = -1.0
    inputs, all_rows = np.eye(32, dtype=np.float32)[:8], [*range(6)]
    assert Head(packed_floats(rows), inputs, isa).greatest([0, 1, 2, 6, 7]) == [0, 500, 17, 0, 0]
    ones, logits = np.ones((6, 32), np.float32), np.full((300, 32), -np.inf, np.float32)
    assert Head(packed_floats(logits), ones, isa).greatest(all_rows) == [-1] * 6
    logits[200] = 1.0
    assert Head(packed_floats(logits), ones, isa).greatest(all_rows) == [200] * 6
    logits[[250, 290]] = np.inf
    assert Head(packed_floats(logits), ones, isa).greatest(all_rows) == [250] * 6


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(5, 40), st.integers(1, 3))
def test_the_greatest_of_many_rows(seed: int, outputs: int, rows: int, threads: int) -> None:
    """Few different logits, so that ties are common; some of them no numbers."""
    random = np.random.default_rng(seed)
    weights = random.integers(-2, 3, (outputs, 32)).astype(np.float32)
    inputs = random.integers(-1, 2, (rows, 32)).astype(np.float32)
    inputs[random.random(rows) < 0.1, 3] = np.nan
    Head(packed_floats(weights), inputs, pool=_native.ThreadPool(threads)).greatest([*range(rows)])


def test_a_pass_that_leaves_its_logits_says_no_more() -> None:
    head = Head(format_weight(FORMATS["Q8_0"], OUTPUTS, WIDTH).packed, inputs_of(4))
    head.logits([1], False)
    with pytest.raises(ValueError, match="was to leave its logits"):
        head.program.greatest()
