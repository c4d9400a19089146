"""Measured figures: what is between them, and what is kept of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.cost.machine import (
    Machine,
    falling,
    machine_from,
    measure,
    remember,
    remembered,
    working_sets,
)
from pelton.errors import ConfigError

MACHINE = Machine(
    "a processor", "avx2", 2, ((1 << 20, 4e10), (1 << 24, 1e10), (1 << 28, 8e9)), 4e11, 0.0, 1e11, 2e-6
)


@settings(deadline=None)
@given(st.integers(1, 1 << 40), st.integers(1, 1 << 40))
def test_bandwidth_falls_with_the_working_set_and_stays_between_what_was_measured(a: int, b: int) -> None:
    small, large = sorted((a, b))
    assert MACHINE.read_bandwidth(small) <= 4e10 * 1.000001
    assert MACHINE.read_bandwidth(small) >= MACHINE.read_bandwidth(large) * 0.999999
    assert MACHINE.read_bandwidth(large) >= MACHINE.memory_bandwidth * 0.999999


@pytest.mark.parametrize(("size", "rate"), MACHINE.bandwidth)
def test_bandwidth_of_a_measured_size_is_the_measured_one(size: int, rate: float) -> None:
    assert MACHINE.read_bandwidth(size) == pytest.approx(rate)


def test_arithmetic_a_level_lacks_runs_as_float32() -> None:
    assert (MACHINE.peak("int8"), MACHINE.peak("bf16"), MACHINE.peak("f32")) == (4e11, 1e11, 1e11)


def test_noise_never_makes_a_small_set_slower_than_a_large_one() -> None:
    assert falling([(1, 5.0), (2, 9.0), (3, 4.0)]) == ((1, 9.0), (2, 9.0), (3, 4.0))


BAD: list[tuple[str, Any]] = [
    ("threads", 0),
    ("threads", True),
    ("threads", "2"),
    ("bandwidth", ()),
    ("bandwidth", ((1 << 20, 1e10), (1 << 20, 1e10))),
    ("bandwidth", ((1 << 20, float("nan")),)),
    ("bandwidth", ((1 << 20, -1.0),)),
    ("bandwidth", ((0, 1e10),)),
    ("f32", 0.0),
    ("f32", float("inf")),
    ("int8", 5.0),
    ("bf16", "fast"),
    ("barrier", -1.0),
    ("isa", ""),
    ("processor", None),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_figures_that_cannot_be_are_refused_by_name(field: str, value: Any) -> None:
    changed: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError) as caught:
        replace(MACHINE, **changed)
    assert caught.value.field == field


def test_a_document_gives_the_machine_back() -> None:
    assert machine_from(json.loads(json.dumps(asdict(MACHINE)))) == MACHINE


@pytest.mark.parametrize("document", [None, [], {}, {"isa": "avx2"}, {**asdict(MACHINE), "extra": 1}])
def test_other_documents_are_refused(document: object) -> None:
    with pytest.raises(ConfigError):
        machine_from(document)


@settings(deadline=None)
@given(st.integers(0, 1 << 34), st.integers(0, 1 << 40))
def test_working_sets_ascend_and_leave_memory_free(l3_bytes: int, free_bytes: int) -> None:
    sizes = working_sets(l3_bytes, free_bytes)
    assert list(sizes) == sorted(set(sizes))
    assert len(sizes) == 1 or sizes[-1] <= free_bytes // 4


@pytest.fixture(scope="module")
def measured() -> Machine:
    return measure(1, "generic")


def test_measured_figures_are_kept_per_level_and_threads(measured: Machine, tmp_path: Path) -> None:
    assert remembered(tmp_path, 1, "generic") is None
    remember(tmp_path, measured)
    assert remembered(tmp_path, 1, "generic") == measured
    assert remembered(tmp_path, 2, "generic") is None


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"{}", b"\xff\xfe", b" " * 70_000])
def test_a_damaged_file_counts_as_none(measured: Machine, tmp_path: Path, body: bytes) -> None:
    remember(tmp_path, measured)
    (path,) = tmp_path.iterdir()
    path.write_bytes(body)
    assert remembered(tmp_path, 1, "generic") is None


def test_a_folder_that_cannot_be_made_loses_the_figures_quietly(measured: Machine, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    remember(blocked / "folder", measured)
    assert remembered(blocked / "folder", 1, "generic") is None


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError):
        measure(1, "avx1024")


def test_a_machine_at_another_moment_reads_at_another_rate_and_computes_as_fast() -> None:
    slower = MACHINE.reading_at(MACHINE.memory_bandwidth / 2)
    assert slower.memory_bandwidth == pytest.approx(MACHINE.memory_bandwidth / 2)
    assert [size for size, _ in slower.bandwidth] == [size for size, _ in MACHINE.bandwidth]
    assert (slower.int8, slower.bf16, slower.f32) == (MACHINE.int8, MACHINE.bf16, MACHINE.f32)
    with pytest.raises(ConfigError, match="bandwidth"):
        MACHINE.reading_at(0.0)
