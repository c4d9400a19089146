"""Levels, what the machine reports, and the vector functions all kernels are built of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pelton import _native
from pelton.errors import ConfigError

ISAS = _native.isa_levels()
NEEDED = {
    "generic": set(),
    "avx2": {"avx2", "fma", "f16c"},
    "avx_vnni": {"avx2", "fma", "f16c", "avx_vnni"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
    "avx512_bf16": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16"},
}


def test_levels_are_those_whose_flags_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PELTON_ISA", raising=False)
    flags = set(_native.cpu_features().flags)
    assert ISAS[0] == "generic"
    assert [level for level in NEEDED if level in ISAS] == ISAS  # slowest first
    for level in ISAS:
        assert NEEDED[level] <= flags
    assert _native.resolve_isa() == ISAS[-1]


@pytest.mark.parametrize("level", ISAS)
def test_the_environment_forces_a_level(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELTON_ISA", level)
    assert _native.resolve_isa() == level
    assert _native.resolve_isa("generic") == "generic"


def test_a_level_the_machine_lacks_is_refused_with_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELTON_ISA", "avx1024")
    with pytest.raises(ConfigError, match=r"avx1024.*generic"):
        _native.resolve_isa()


def test_the_processor_is_described() -> None:
    cpu = _native.cpu_features()
    assert cpu.num_processors >= 1
    assert min(cpu.l1_bytes, cpu.l2_bytes, cpu.l3_bytes) >= 0


def peak_kib() -> int:
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bandwidth_is_read_from_memory_of_its_own() -> None:
    """Pages that nobody wrote would all be the system's one page of zeros, in the cache."""
    code = (
        "from pelton import _native; from tests.native.test_cpu import peak_kib; before = peak_kib();"
        "_native.read_bandwidth(_native.ThreadPool(2), 192 << 20, 1); assert peak_kib() - before > 128 << 10"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("isa", ISAS)
def test_ceilings_are_measured(isa: str) -> None:
    pool = _native.ThreadPool(2)
    assert _native.read_bandwidth(pool, 1 << 20, 2, isa) > 1e6
    assert _native.arithmetic_peak(pool, "int8", 0.01, isa) > 1e6
    assert _native.arithmetic_peak(pool, "f32", 0.01, isa) > 1e6
    assert (_native.arithmetic_peak(pool, "bf16", 0.01, isa) > 0) == (isa == "avx512_bf16")
    with pytest.raises(ValueError, match="int8, bf16 and f32"):
        _native.arithmetic_peak(pool, "int4", 0.01, isa)


@pytest.mark.parametrize("isa", ISAS)
def test_exp_keeps_its_stated_error(isa: str) -> None:
    x = np.linspace(-87.33, 88.72, 1 << 20, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    units = np.abs(_native.vector_exp(x, isa) - exact) / np.spacing(exact.astype(np.float32))
    assert units.max() <= 1.1


@pytest.mark.parametrize("isa", ISAS)
def test_coarse_exp2_keeps_its_stated_error(isa: str) -> None:
    x = np.concatenate([np.linspace(-100, 0, 1 << 20), np.linspace(-2, 0, 1 << 20)]).astype(np.float32)
    exact = np.exp2(x.astype(np.float64))
    assert np.abs(_native.vector_coarse_exp2(x, isa) / exact - 1).max() <= 3e-6
    below = np.nextafter(np.float32(-100), np.float32(-101))  # from there on nothing, and nothing denormal
    edges = np.array([0.0, -0.0, -1.0, below, -127.0, -1e30, -np.inf, np.nan] * 2, np.float32)
    found = _native.vector_coarse_exp2(edges, isa)[:8]
    np.testing.assert_array_equal(found, [1, 1, 0.5, 0, 0, 0, 0, np.nan])


@pytest.mark.parametrize("isa", ISAS)
def test_exp_at_the_edges(isa: str) -> None:
    x = np.array([-np.inf, -1e30, -88.0, 0.0, -0.0, 89.0, 1e30, np.inf] * 2, np.float32)
    expected = [0, 0, 0, 1, 1, np.inf, np.inf, np.inf] * 2
    np.testing.assert_array_equal(_native.vector_exp(x, isa), expected)
    assert np.all(np.isnan(_native.vector_exp(np.full(16, np.nan, np.float32), isa)))


@pytest.mark.parametrize("isa", ISAS)
def test_every_float16_widens_exactly(isa: str) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        expected = halves.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(_native.vector_from_f16(halves, isa), expected)


def awkward_floats() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Random bit patterns, and the values around every rounding border of float16."""
    random = np.random.default_rng(1).integers(0, 1 << 32, 1 << 18, dtype=np.uint32).view(np.float32)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    borders = (halves[:-1] + halves[1:]) / 2
    near = np.concatenate(
        [halves, borders, np.nextafter(borders, np.float32(0)), np.nextafter(borders, np.float32(9e4))]
    )
    joined = np.concatenate([random, near, -near, np.array([65519.0, 65520.0, 65536.0], np.float32)])
    return joined[: joined.size // 16 * 16]


@pytest.mark.parametrize("isa", ISAS)
def test_float16_rounds_to_nearest_even(isa: str) -> None:
    x = awkward_floats()
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(_native.vector_to_f16(x, isa).view(np.float16), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_bfloat16_rounds_to_nearest_even(isa: str) -> None:
    x = awkward_floats()
    got = (_native.vector_to_bf16(x, isa).astype(np.uint32) << 16).view(np.float32)
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    expected = np.where(np.isnan(x), np.float32(np.nan), rounded.astype(np.uint32).view(np.float32))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_reductions_follow_one_tree(isa: str) -> None:
    for seed in range(50):
        x = np.random.default_rng(seed).standard_normal(16, dtype=np.float32)
        total, largest = _native.vector_reduce(x, isa)
        tree = x
        for half in (8, 4, 2, 1):
            tree = tree[:half] + tree[half : 2 * half]
        assert (total, largest) == (tree[0], x.max())
