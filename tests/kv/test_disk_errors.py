"""The disk tier when a system call fails: a block less, no half file, and a pause before the next try."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pelton.kv import CacheFolder

from .disk_bench import DiskBench, prompt


class FailingFolder(CacheFolder):
    """Fails the system call number `at`, counted from 0, and all later ones if it is `persistent`."""

    def __init__(self, path: Path, at: int, persistent: bool, code: int) -> None:
        self.calls = 0
        self.spoiled = 0  # failed calls on files
        self.on_folder = False
        self.at, self.persistent, self.code = at, persistent, code
        super().__init__(path)

    def count(self) -> None:
        self.calls += 1
        if self.calls - 1 == self.at or (self.persistent and self.calls - 1 > self.at):
            self.spoiled += not self.on_folder
            raise OSError(self.code, os.strerror(self.code))

    def create(self, path: Path) -> int:
        self.count()
        return super().create(path)

    def write_some(self, descriptor: int, data: memoryview) -> int:
        self.count()
        return super().write_some(descriptor, data[: max(1, len(data) // 2)])  # and never all at once

    def sync(self, descriptor: int) -> None:
        self.count()
        super().sync(descriptor)

    def sync_folder(self) -> None:
        self.on_folder = True
        try:
            super().sync_folder()
        finally:
            self.on_folder = False

    def rename(self, source: Path, target: Path) -> None:
        self.count()
        super().rename(source, target)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_an_error_at_any_call_is_a_block_less(tmp_path: Path, persistent: bool, code: int) -> None:
    tokens, at, calls = prompt(40, 1), 0, 1
    while at < calls:
        path = tmp_path / f"{at}"
        folder = FailingFolder(path, at, persistent, code)
        bench = DiskBench(path, folder=folder)
        assert bench.run(tokens) == 0
        bench.flush()
        assert bench.run(tokens) == 39  # memory serves on
        bench.flush()
        assert not list(path.glob("*.tmp"))
        calls = folder.calls
        assert bench.tier.stats.failed == (folder.spoiled if persistent else min(1, folder.spoiled))
        bench.close()
        after = DiskBench(path)
        assert after.tier.stats.broken == 0
        after.run(tokens)
        after.close()
        at += 1
    assert at > 20


def test_after_an_error_the_disk_is_left_alone_for_a_while(tmp_path: Path) -> None:
    folder = FailingFolder(tmp_path, 2, False, errno.ENOSPC)
    bench = DiskBench(tmp_path, folder=folder, pause=3600.0)
    bench.run(prompt(32, 1))
    bench.flush()
    assert bench.tier.stats.failed == 1
    calls = folder.calls
    assert bench.run(prompt(32, 2)) == 0
    assert bench.run(prompt(32, 1)) == 31
    bench.flush()
    assert folder.calls == calls
    assert bench.tier.num_blocks == 0
    bench.close()
