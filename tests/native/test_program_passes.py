"""What a pass owns: its memory, its arena, its floating-point mode; and that one bad row stays alone."""

from __future__ import annotations

import gc
import os
import resource
import weakref
from pathlib import Path

import numpy as np
import pytest

from pelton import _native
from pelton.errors import MemoryBudgetError

from .floating_point import needs_fenv, without_denormals
from .programs import F32, Arena, Building, attend, begin, weight

ISAS = _native.isa_levels()
WIDE = 100_000  # 100 rows are 40 MB, which the allocator gives back to the system when freed


def test_a_view_outlives_the_memory_of_its_pass() -> None:
    """Of a value that the rows' own threads compute, as of one that the team shares."""
    building = Building()
    x = building.embedded(WIDE, np.ones((1, WIDE), np.float32))
    y, z = building.value(WIDE), building.value(WIDE)
    building.program.elementwise("scale", x, -1, y, 2.0)
    building.program.linear(
        building.embedded(1), -1, [(weight(WIDE, 1), np.full(WIDE, 3.0, np.float32), z)], -1, False
    )
    program = building.finish(y, z)
    begin(program, [0] * 100)
    program.run(0, program.num_instructions)
    local, shared = program.view(y), program.view(z)
    begin(program, [0] * 120)  # needs larger memory than there is
    assert local.sum() == 2.0 * local.size
    assert shared.sum() == 3.0 * shared.size


def address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="ASan ends where memory does")
def test_a_pass_ends_when_another_begins_even_in_vain() -> None:
    """The second program's begin replaces the memory of the first's pass, then fails."""
    workspace = _native.Workspace()
    first, second = Building(workspace), Building(workspace)
    programs = []
    for building, width in ((first, 16), (second, WIDE)):
        y = building.value(16)
        building.program.linear(building.embedded(width), -1, [(weight(16, width), None, y)], -1, False)
        programs.append((building.finish(y), y))
    (small, y), (large, _) = programs
    begin(small, [0] * 4)
    small.run(0, 2)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + (64 << 20), before[1]))
    try:
        with pytest.raises(MemoryBudgetError):
            begin(large, [0] * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    for program in (small, large):
        with pytest.raises(ValueError, match="forward pass has begun"):
            program.read(y)
    begin(small, [0])
    small.run(0, 2)


def test_the_arena_lives_as_long_as_the_pass() -> None:
    building = Building()
    program = building.finish(attend(building))
    arrays = Arena().arrays()
    alive = [weakref.ref(array) for array in arrays]
    begin(program, [0], arrays=arrays)
    del arrays
    gc.collect()
    assert all(ref() is not None for ref in alive)
    program.run(0, program.num_instructions)
    begin(program, [0])
    gc.collect()
    assert all(ref() is None for ref in alive)


def mixture(scores: F32, isa: str) -> tuple[F32, F32]:
    """(routed, outputs) of a pass whose row i has router scores `scores` [4, 4]; two experts a row."""
    random = np.random.default_rng(0)
    b = Building(isa=isa)
    x = b.embedded(16, random.standard_normal((4, 16), dtype=np.float32))
    routed, y = b.value(4), b.value()
    b.program.route(b.embedded(4, scores), routed, 2, True)
    gate, up = ([weight(32, 16, random.standard_normal((32, 16))) for _ in range(4)] for _ in range(2))
    down = [weight(16, 32, random.standard_normal((16, 32))) for _ in range(4)]
    buffers = [b.value(32), -1, b.value(64), -1, b.value(32)]
    b.program.experts(x, -1, routed, y, gate, up, down, buffers, "silu", 2)
    program = b.finish(y, routed)
    begin(program, [0, 1, 2, 3])
    program.run(0, program.num_instructions)
    return program.read(routed), program.read(y)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "bad", [[np.inf, 1, 2, 3], [np.inf] * 4, [-np.inf] * 4, [np.nan, 1, 2, 3], [1, -np.nan, 2, 3]], ids=str
)
def test_a_row_without_a_softmax_fails_alone(bad: list[float], isa: str) -> None:
    scores = np.random.default_rng(1).standard_normal((4, 4), dtype=np.float32)
    expected = mixture(scores, isa)
    scores[1] = bad
    routed, outputs = mixture(scores, isa)
    others = [0, 2, 3]
    np.testing.assert_array_equal(routed[others], expected[0][others])
    np.testing.assert_array_equal(outputs[others], expected[1][others])
    assert list(np.isnan(routed[1])) == [True, True, False, False]
    assert np.isnan(outputs[1]).all()


@pytest.mark.parametrize("context", [0, 250, 511, 100_000, 2**24 - 9])
def test_rope_turns_by_the_position_wherever_it_is(context: int) -> None:
    frequencies = 10_000.0 ** (-np.arange(8) / 8)
    x = np.random.default_rng(context).standard_normal((4, 16), dtype=np.float32)
    b = Building()
    y = b.value()
    b.program.rope(b.embedded(16, x), y, _native.RopeSpec(16, frequencies.tolist(), 1.5, False))
    program = b.finish(y)
    tokens = [0, 1, 2, 3, 3, 2, 1, 0]
    begin(program, tokens, context)
    program.run(0, 2)
    angles = (context + np.arange(8))[:, None] * frequencies
    cosine, sine = 1.5 * np.cos(angles), 1.5 * np.sin(angles)
    low, high = x[tokens, :8].astype(np.float64), x[tokens, 8:].astype(np.float64)
    expected = np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=1)
    np.testing.assert_allclose(program.read(y), expected, atol=1e-6 * 4)


@needs_fenv
@pytest.mark.parametrize("threads", [1, 2])
def test_the_callers_floating_point_mode_changes_no_bit(threads: int) -> None:
    """PyTorch's set_flush_denormal(True) sets it for one thread, whose share of rows would differ."""
    pool = _native.ThreadPool(threads)
    x, w = np.full((4, 16), 1e-30, np.float32), weight(64, 16, np.full((64, 16), 1e-10), pool)
    plain, flushed = np.empty((4, 64), np.float32), np.empty((4, 64), np.float32)
    logits = np.array([[1e-40, 2e-40]], np.float32)
    _native.linear(w, x, plain, None, False, pool)
    assert np.all(plain > 0)
    with without_denormals():
        assert np.all(x * np.float32(1e-10) == 0)
        _native.linear(w, x, flushed, None, False, pool)
        born_flushing = _native.ThreadPool(2)  # threads inherit the mode of the one that starts them
        assert np.all(x * np.float32(1e-10) == 0)  # the caller's own mode is left as it was
        chosen = _native.RowSampler(pool, "").most_likely(logits)
    np.testing.assert_array_equal(flushed, plain)
    _native.linear(w, x, flushed, None, False, born_flushing)
    np.testing.assert_array_equal(flushed, plain)
    assert chosen == [1]
