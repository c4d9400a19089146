"""Each piece of advice appears where it helps and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pelton.cost.advice import Surroundings, advice, observe, parse_choice, parse_quota
from pelton.cost.machine import Machine
from pelton.errors import ConfigError

IDEAL = Surroundings(
    processor="ideal",
    flags=("avx2", "avx512_vnni"),
    levels=("generic", "avx2", "avx512"),
    isa="avx512",
    processors=8,
    threads=8,
    l1_bytes=1 << 15,
    l2_bytes=1 << 20,
    l3_bytes=1 << 25,
    memory_bytes=64 << 30,
    free_bytes=32 << 30,
    swap_used_bytes=0,
    quota=None,
    load=0.3,
    governor="performance",
    huge_pages="madvise",
)
MACHINE = Machine("ideal", "avx512", 8, ((1 << 20, 1e11), (1 << 30, 9e10)), 4e12, 2e12, 1e12, 1e-6)


def test_nothing_helps_an_ideal_machine() -> None:
    assert advice(IDEAL, MACHINE) == ()


CASES: list[tuple[dict[str, Any], str]] = [
    ({"isa": "avx2"}, "drop PELTON_ISA"),
    ({"isa": "generic", "levels": ("generic",)}, "no AVX2"),
    ({"flags": ("avx2",)}, "VNNI"),
    ({"threads": 4}, "raise --threads"),
    ({"threads": 12}, "--threads 8"),
    ({"quota": 3.5}, "3.5 of 8"),
    ({"load": 9.0}, "Other programs"),
    ({"free_bytes": 1 << 28}, "--kv-memory"),
    ({"swap_used_bytes": 4 << 30}, "swapped out"),
    ({"huge_pages": "never"}, "Huge pages"),
    ({"governor": "powersave"}, "cpupower"),
]


@pytest.mark.parametrize(("change", "words"), CASES)
def test_what_is_wrong_is_named(change: dict[str, Any], words: str) -> None:
    lines = advice(replace(IDEAL, **change), MACHINE)
    assert any(words in line for line in lines)
    assert all(line.endswith((".", "!")) and len(line) < 200 for line in lines)


def test_slow_barriers_and_fast_caches_are_named() -> None:
    machine = replace(MACHINE, barrier=1e-4, bandwidth=((1 << 20, 3e11), (1 << 30, 9e10)))
    barrier, cache = advice(IDEAL, machine)
    assert "100 us" in barrier
    assert "3.3 times" in cache


@pytest.mark.parametrize(
    ("text", "quota"),
    [("150000 100000", 1.5), ("max 100000", None), (None, None), ("", None), ("1 0", None), ("a b", None)],
)
def test_quotas(text: str | None, quota: float | None) -> None:
    assert parse_quota(text) == quota


@pytest.mark.parametrize(
    ("text", "choice"), [("always [madvise] never", "madvise"), (None, None), ("a b", None), ("[]", "")]
)
def test_choices(text: str | None, choice: str | None) -> None:
    assert parse_choice(text) == choice


def test_this_machine_can_be_described() -> None:
    around = observe(1)
    assert around.isa in around.levels
    assert 0 < around.free_bytes <= around.memory_bytes
    with pytest.raises(ConfigError):
        observe(1, "avx1024")
