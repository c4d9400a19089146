"""The search for how to read weights: what it chooses, remembers, and that no bit hangs on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pelton._native import PackedWeight, ThreadPool, WeightLayout, WeightReading
from pelton.exec.native import NativeExecutor, available_levels
from pelton.exec.native_tuning import (
    FEW,
    MANY,
    ONE,
    UNTUNED,
    USUAL,
    Reading,
    Readings,
    prepared_by_many,
    remembered,
    sampled,
    search,
    tuned,
)

from ..laws.bench import Bench, random_tokens
from ..tiny import VOCAB, tiny_plan, tiny_weights

POOL = ThreadPool(1)
OTHER = Reading(8192, not USUAL.keep, 2, 3 - USUAL.prepared)
CHOICE = Readings(OTHER, USUAL._replace(ahead=4096), OTHER._replace(ahead=0))


def weight(megabytes: int) -> PackedWeight:
    return PackedWeight(megabytes * 256, 1024, WeightLayout.floats("F32"))


@pytest.mark.parametrize(
    ("gain", "chosen"),
    [({}, 0), ({8192: 0.9}, 8192), ({16384: 0.985}, 0), ({4096: 0.95, 16384: 0.9}, 16384), ({6144: 1.4}, 0)],
)
def test_only_a_clear_gain_is_taken(gain: dict[int, float], chosen: int) -> None:
    found = search(lambda rows, reading: 1e-3 * rows * gain.get(reading.ahead, 1.0))
    assert found == (USUAL._replace(ahead=chosen), USUAL._replace(ahead=chosen), USUAL)


def test_chance_is_no_gain() -> None:
    random = np.random.Generator(np.random.Philox(3))
    chosen = [search(lambda rows, reading: random.uniform(1.0, 1.3)) for _ in range(50)]
    assert sum(found == UNTUNED for found in chosen) > 40


def test_a_gain_is_seen_through_noise() -> None:
    random = np.random.Generator(np.random.Philox(4))

    def measure(rows: int, reading: Reading) -> float:
        return (0.85 if reading.ahead == 8192 else 1.0) * random.uniform(1.0, 1.2)

    chosen = [search(measure) for _ in range(50)]
    assert sum(found is not None and found.one.ahead == found.few.ahead == 8192 for found in chosen) > 40


def test_each_number_of_rows_has_its_own_choice() -> None:
    few = USUAL._replace(ahead=16384, panels=2)
    wanted = {ONE: OTHER._replace(prepared=USUAL.prepared), FEW: few, MANY: OTHER}

    def measure(rows: int, reading: Reading) -> float:
        return 1.0 - 0.1 * sum(a == b for a, b in zip(reading, wanted[rows], strict=True))

    assert search(measure) == (wanted[ONE], wanted[FEW], USUAL._replace(prepared=OTHER.prepared))


def test_one_row_may_be_read_in_other_ways_than_is_usual() -> None:
    def measure(rows: int, reading: Reading) -> float:
        return 0.5 if reading.keep != USUAL.keep and reading.panels == USUAL.panels else 1.0

    found = search(measure)
    assert found is not None
    assert found.one == USUAL._replace(keep=not USUAL.keep)


def test_a_disturbed_machine_chooses_nothing() -> None:
    seen: dict[Reading, int] = {}

    def measure(rows: int, reading: Reading) -> float:
        seen[reading] = seen.get(reading, 0) + 1
        return 1.0 if seen[reading] == 1 else 2.0

    assert search(measure) is None


def never() -> Readings:
    raise AssertionError("it was remembered")


def test_a_choice_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "new" / "choice.json"
    assert remembered(path, lambda: CHOICE) == CHOICE
    assert remembered(path, never) == CHOICE
    assert [entry.name for entry in path.parent.iterdir()] == ["choice.json"]  # no temporary file is left


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2, 3]",
        b"[[0, true, 1, 1], [0, true, 1, 1]]",
        b"[[0, true, 1], [0, true, 1], [0, true, 1]]",
        b"[[1, true, 1, 1], [0, true, 1, 1], [0, true, 1, 1]]",
        b"[[true, true, 1, 1], [0, true, 1, 1], [0, true, 1, 1]]",
        b"[[0, 1, 1, 1], [0, true, 1, 1], [0, true, 1, 1]]",
        b"[[0, true, true, 1], [0, true, 1, 1], [0, true, 1, 1]]",
        b"[[0, true, 3, 1], [0, true, 1, 1], [0, true, 1, 1]]",
        b"[[0, true, 1, true], [0, true, 1, 1], [0, true, 1, 1]]",
        b"[[0, true, 1, 3], [0, true, 1, 1], [0, true, 1, 1]]",
        b'{"one": 1}',
        b"\xff\xfe",
        b"[" * 4000,
        b" " * 5000,
    ],
)
def test_a_file_that_holds_no_choice_is_written_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "choice.json"
    path.write_bytes(content)
    assert remembered(path, lambda: CHOICE) == CHOICE
    assert json.loads(path.read_text()) == [list(way) for way in CHOICE]


def test_what_a_busy_machine_says_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "choice.json"
    assert remembered(path, lambda: None) == UNTUNED
    assert not path.exists()


def test_a_folder_that_cannot_be_written_loses_the_choice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert remembered(tmp_path / "file" / "choice.json", lambda: CHOICE) == CHOICE


def test_small_models_are_not_measured(tmp_path: Path) -> None:
    assert tuned(tmp_path, [weight(1)] * 3, POOL, "") == UNTUNED
    assert list(tmp_path.iterdir()) == []


def test_a_large_model_is_measured_once_for_its_shapes(tmp_path: Path) -> None:
    weights = [weight(20), weight(20)]
    found = tuned(tmp_path, weights, POOL, "")
    assert found.few == USUAL._replace(ahead=found.few.ahead, panels=found.few.panels)
    assert found.many == USUAL  # of floats nothing is prepared
    files = list(tmp_path.iterdir())
    if files:  # the machine was quiet enough to tell
        files[0].write_text(json.dumps(CHOICE))
        assert tuned(tmp_path, weights, POOL, "") == CHOICE
        tuned(tmp_path, [weight(21), weight(20)], POOL, "")
        assert files[0].read_text() == json.dumps(CHOICE)


def test_what_many_rows_prepare_is_measured_where_it_matters() -> None:
    floats = weight(1)
    blocks = PackedWeight(256, 1024, WeightLayout.block(4, 32, 8, "f16", False))
    paired = blocks.in_pairs(8, POOL)
    assert prepared_by_many([blocks, paired, floats, paired]) == [blocks]
    assert prepared_by_many([blocks, blocks, blocks, floats]) == [blocks, blocks]
    assert prepared_by_many([paired, floats]) == []


def test_what_makes_no_difference_is_not_measured() -> None:
    asked: set[int] = set()

    def measure(rows: int, reading: Reading) -> float:
        asked.add(rows)
        return 0.5 if reading.prepared != USUAL.prepared else 1.0

    assert search(measure, ()) == UNTUNED
    assert asked == {ONE, FEW}


def test_a_sample_is_bounded() -> None:
    large = weight(100)
    assert sampled([large] * 9, 256 << 20) == [large] * 2
    assert sampled([weight(300)], 256 << 20)[0].num_bytes == 300 << 20


def test_a_distance_to_ask_ahead_is_bounded() -> None:
    for ahead in (-1, (1 << 20) + 1):
        with pytest.raises(ValueError, match="a distance to prefetch is out of range"):
            WeightReading(ahead, keep=False, panels=1, prepared=0)


def test_panels_side_by_side_are_one_two_or_four() -> None:
    for panels in (-1, 3, 8):
        with pytest.raises(ValueError, match=f"panels side by side are 1, 2 or 4, .* not {panels}"):
            WeightReading(0, keep=False, panels=panels, prepared=0)


def test_what_is_prepared_is_nothing_codes_or_scales() -> None:
    for prepared in (-1, 3):
        with pytest.raises(ValueError, match=f"0 nothing, 1 codes or 2 scales, not {prepared}"):
            WeightReading(0, keep=False, panels=0, prepared=prepared)


@pytest.mark.parametrize("isa", available_levels())
@pytest.mark.parametrize("weight_format", ["Q4_1", "Q8_0", "BF16"])
def test_no_bit_hangs_on_it(isa: str, weight_format: str) -> None:
    weights = tiny_weights(weight_format=weight_format)
    executor = NativeExecutor(tiny_plan(weights), weights, 2, isa)
    bench, tokens = Bench(executor), random_tokens(40, 2, VOCAB)
    found = []
    others = [Readings(*[OTHER._replace(ahead=16384, panels=panels)] * 3) for panels in (1, 4)]
    for readings in (UNTUNED, CHOICE, *others):
        executor.read_weights(readings)
        found.append([bench.alone(tokens, chunk) for chunk in (1, 5, 8, 40)])
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    executor.close()
