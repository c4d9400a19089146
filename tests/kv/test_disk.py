"""The disk tier: what comes back after a restart is right, and whatever a disk does, it is only a miss."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.errors import ConfigError
from pelton.kv import CacheFolder, KVLayout, kv_identity
from pelton.kv.disk import DiskTier
from pelton.kv.disk_format import decode_header
from pelton.kv.tree import Node
from pelton.types import BLOCK_SIZE

from .disk_bench import LAYOUT, DiskBench, files, prompt

FILE_BYTES = 1000
"""About what a file of the bench takes; budgets are written in it."""


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Callable[..., DiskBench]]:
    """Makes benches over one folder, one after the other: the one before is closed, as by a restart."""
    made: list[DiskBench] = []

    def make(**options: object) -> DiskBench:
        if made:
            made[-1].close()
        made.append(DiskBench(tmp_path / "kv", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    made[-1].close()


def test_prefixes_survive_a_restart(benches: Callable[..., DiskBench], tmp_path: Path) -> None:
    tokens = prompt(100, 1)
    assert benches().run(tokens) == 0
    again = benches()
    assert again.run(tokens + prompt(50, 2)) == 100
    assert again.tier.stats.loaded == 4
    assert again.run(tokens, salt="other") == 0
    assert benches().run(tokens + prompt(50, 2)) == 149
    assert (tmp_path / "kv").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in files(tmp_path)} == {0o600}


def test_a_path_is_walked_a_few_times_however_long_it_is(
    benches: Callable[..., DiskBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = [0]
    path, touch = Node.path, DiskTier.touch

    def counted(node: Node) -> list[Node]:
        walked[0] += node.depth
        return path(node)

    def touched(tier: DiskTier, node: Node) -> None:
        walked[0] += node.depth
        touch(tier, node)

    monkeypatch.setattr(Node, "path", counted)
    monkeypatch.setattr(DiskTier, "touch", touched)
    bench, tokens = benches(blocks=70), prompt(60 * BLOCK_SIZE, 1)
    bench.run(tokens)
    again = benches(blocks=70)  # the first is closed, which offers every block once more
    assert walked[0] <= 8 * 60
    walked[0] = 0
    assert again.run(tokens) == len(tokens) - 1
    assert again.tier.stats.loaded == 60
    assert walked[0] <= 8 * 60


def test_what_memory_evicts_comes_back_from_disk(benches: Callable[..., DiskBench]) -> None:
    bench = benches(blocks=8)
    prompts = [prompt(150, seed) for seed in range(6)]
    for tokens in prompts:
        assert bench.run(tokens) == 0
    bench.flush()
    assert [bench.run(tokens) for tokens in prompts] == [149] * 6
    assert bench.tier.stats.loaded >= 20
    assert bench.cache.stats.evicted >= 40


def test_a_copy_on_its_way_is_found(benches: Callable[..., DiskBench]) -> None:
    bench = benches(blocks=5)
    tokens = prompt(150, 1)
    bench.run(tokens)
    bench.run(prompt(150, 2))  # the first is evicted, written or not
    assert bench.run(tokens) == 149


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 200)), min_size=1, max_size=12), st.integers(3, 40)
)
@settings(max_examples=15)
def test_any_budget_and_restarts_leave_right_numbers(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[int, int]], room: int
) -> None:
    path = tmp_path_factory.mktemp("kv")
    for _ in range(2):
        bench = DiskBench(path, blocks=8, budget=room * FILE_BYTES)
        for seed, length in turns:
            bench.run(prompt(200, seed)[:length])
            assert bench.tier.bytes_used <= bench.tier.budget_bytes
        bench.close()
        assert sum(file.stat().st_size for file in path.glob("*.kv")) <= room * FILE_BYTES


def test_the_least_recently_used_file_goes_first_and_leaves_before_parents(
    benches: Callable[..., DiskBench],
) -> None:
    bench = benches(budget=8 * FILE_BYTES)
    first, second = prompt(96, 1), prompt(96, 2)
    bench.run(first)
    bench.run(second)
    bench.run([*first, 7])
    bench.run(prompt(128, 3))
    again = benches()
    assert again.run([*first, 8]) == 96
    assert again.run([*second, 8]) < 96


def test_damaged_and_foreign_files_are_misses(benches: Callable[..., DiskBench], tmp_path: Path) -> None:
    tokens = prompt(160, 1)
    benches().run(tokens)
    benches().close()
    victim = max(files(tmp_path), key=lambda file: len(decode_header(file.read_bytes()).tokens))
    data = bytearray(victim.read_bytes())
    data[-40] ^= 1
    victim.write_bytes(data)
    folder = tmp_path / "kv"
    (folder / "notes.txt").write_text("mine")
    (folder / f"{'0' * 32}.kv").write_bytes(b"not a cache file")
    (folder / f"{'1' * 32}.tmp").write_bytes(b"half")
    (folder / f"{'2' * 32}.kv").symlink_to("/etc/passwd")
    bench = benches()
    assert bench.tier.stats.strange == 2
    assert bench.tier.stats.broken == 1
    assert bench.run(tokens) == 128
    assert bench.tier.stats.broken == 2
    bench.flush()
    names = {file.name for file in folder.iterdir()}
    assert {"notes.txt", f"{'2' * 32}.kv"} <= names
    assert not {f"{'0' * 32}.kv", f"{'1' * 32}.tmp", victim.name} & names
    assert Path("/etc/passwd").stat().st_size > 0


def test_files_of_another_model_are_not_read_and_go_first(
    benches: Callable[..., DiskBench], tmp_path: Path
) -> None:
    tokens = prompt(160, 1)
    benches().run(tokens)
    other = benches(identity=b"j" * 32)
    assert other.tier.stats.strange == 5
    assert other.run(tokens) == 0
    assert benches(budget=6 * FILE_BYTES, identity=b"j" * 32).run(tokens) == 159
    assert benches().run(tokens) < 159


def test_a_child_without_its_parent_goes(benches: Callable[..., DiskBench], tmp_path: Path) -> None:
    tokens = prompt(160, 1)
    benches().run(tokens)
    benches().close()
    by_length = sorted(files(tmp_path), key=lambda file: len(decode_header(file.read_bytes()).tokens))
    by_length[2].unlink()
    bench = benches()
    assert bench.tier.num_blocks == 2
    assert bench.run(tokens) == 64


def test_two_processes_do_not_share_a_folder(benches: Callable[..., DiskBench], tmp_path: Path) -> None:
    benches()
    with pytest.raises(ConfigError, match="in use by another process"):
        CacheFolder(tmp_path / "kv")
    with pytest.raises(ConfigError, match="cannot be used"):
        CacheFolder(Path("/proc/kv"))


def test_a_full_queue_drops_copies_and_does_not_wait(tmp_path: Path) -> None:
    bench = DiskBench(tmp_path, blocks=64, queue=1)  # two blocks' room, the least there is
    started = time.monotonic()
    bench.run(prompt(2000, 1))
    assert bench.tier.stats.dropped > 0
    assert time.monotonic() - started < 60
    bench.close()
    again = DiskBench(tmp_path, blocks=64)
    assert again.run([*prompt(2000, 1), 5]) == 2000  # closing wrote the rest
    again.close()


# What a crash can leave.


def killed_runs(path: Path, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(count):
        command = [sys.executable, "-m", "tests.kv.disk_bench", str(path), str(int(random.integers(2**20)))]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(float(random.uniform(0, 0.15)))
        child.kill()
        child.wait()
        child.stdout.close()
        bench = DiskBench(path, budget=60 * 1500)  # every sequence checks all numbers that it finds
        for number in range(4):
            bench.run([*prompt(40, number), 5], salt=str(number % 2))
        assert bench.tier.stats.broken == 0
        bench.flush()
        assert not list(path.glob("*.tmp"))
        bench.close()


def test_killed_at_any_time_nothing_is_damaged(tmp_path: Path) -> None:
    killed_runs(tmp_path, 20, 0)


@pytest.mark.load
def test_killed_200_times_nothing_is_damaged(tmp_path: Path) -> None:
    killed_runs(tmp_path, 200, 1)


def test_the_identity_tells_models_and_facts_apart(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(10))
    same = kv_identity(LAYOUT, ["a", "b"], [weights])
    assert len(same) == 32
    assert kv_identity(LAYOUT, ["a", "b"], [weights]) == same
    others = [
        kv_identity(LAYOUT, ["ab", ""], [weights]),
        kv_identity(KVLayout(LAYOUT.shape, "float32"), ["a", "b"], [weights]),
        kv_identity(LAYOUT, ["a", "b"], []),
    ]
    stamp = weights.stat().st_mtime_ns
    weights.write_bytes(bytes(9) + b"1")
    os.utime(weights, ns=(stamp, stamp))
    others.append(kv_identity(LAYOUT, ["a", "b"], [weights]))
    assert len({same, *others}) == 5
