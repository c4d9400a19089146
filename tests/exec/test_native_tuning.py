"""The search for how far ahead to prefetch: what it chooses, remembers, and that no bit hangs on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pelton._native import PackedWeight, ThreadPool, WeightLayout
from pelton.exec.native import NativeExecutor, available_levels
from pelton.exec.native_tuning import CANDIDATES, UNTUNED, Ahead, remembered, sampled, search, tuned

from ..laws.bench import Bench, random_tokens
from ..tiny import VOCAB, tiny_plan, tiny_weights

POOL = ThreadPool(1)
CHOICE: Ahead = (8192, 4096)


def weight(megabytes: int) -> PackedWeight:
    return PackedWeight(megabytes * 256, 1024, WeightLayout.floats("F32"))


@pytest.mark.parametrize(
    ("gain", "chosen"),
    [({}, 0), ({8192: 0.9}, 8192), ({16384: 0.985}, 0), ({4096: 0.95, 16384: 0.9}, 16384), ({6144: 1.4}, 0)],
)
def test_only_a_clear_gain_is_taken(gain: dict[int, float], chosen: int) -> None:
    assert search(lambda rows, ahead: 1e-3 * rows * gain.get(ahead, 1.0)) == (chosen,) * 2


def test_each_number_of_rows_has_its_own_choice() -> None:
    best = {1: 4096, 4: 16384}
    assert search(lambda rows, ahead: 0.9 if ahead == best[rows] else 1.0) == (4096, 16384)


def test_a_disturbed_machine_chooses_nothing() -> None:
    assert search(lambda rows, ahead: 5.0 if ahead == 0 else 1.0) is None


def never() -> Ahead:
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
        b"[0, 0, 0]",
        b"[true, 0]",
        b'{"ahead": 1}',
        b"\xff\xfe",
        b"[" * 4000,
        b" " * 5000,
    ],
)
def test_a_file_that_holds_no_choice_is_written_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "choice.json"
    path.write_bytes(content)
    assert remembered(path, lambda: CHOICE) == CHOICE
    assert json.loads(path.read_text()) == list(CHOICE)


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
    assert set(found) <= set(CANDIDATES)
    files = list(tmp_path.iterdir())
    if files:  # the machine was quiet enough to tell
        files[0].write_text(json.dumps(CHOICE))
        assert tuned(tmp_path, weights, POOL, "") == CHOICE
        tuned(tmp_path, [weight(21), weight(20)], POOL, "")
        assert files[0].read_text() == json.dumps(CHOICE)


def test_a_sample_is_bounded() -> None:
    large = weight(100)
    assert sampled([large] * 9) == [large] * 2
    assert sampled([weight(300)])[0].num_bytes == 300 << 20


@pytest.mark.parametrize("isa", available_levels())
@pytest.mark.parametrize("weight_format", ["Q4_1", "Q8_0", "BF16"])
def test_no_bit_hangs_on_it(isa: str, weight_format: str) -> None:
    weights = tiny_weights(weight_format=weight_format)
    executor = NativeExecutor(tiny_plan(weights), weights, 2, isa)
    bench, tokens = Bench(executor), random_tokens(40, 2, VOCAB)
    found = []
    setters: list[Callable[[], None]] = [
        lambda: None,
        lambda: executor.prefetch((4096, 8192)),
        lambda: executor.prefetch((16384, 4096)),
    ]
    for change in setters:
        change()
        found.append([bench.alone(tokens, chunk) for chunk in (1, 5, 40)])
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    executor.close()
