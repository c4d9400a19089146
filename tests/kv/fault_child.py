"""What happens to a small cache, in processes that faults are made for.

    python -m tests.kv.fault_child zygote      reads folders from stdin; forks a process for each, which stops
                                               itself, to be traced, and then stores and reloads
    python -m tests.kv.fault_child fill DIR    fills a disk with prefixes, the cache's and an engine's

The forked ones have imported everything: what they do with files is the cache's doing alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np

from pelton.errors import ConfigError

from .disk_bench import DiskBench, prompt

REFUSED = 3
"""Exit status where the folder could not be used and a ConfigError said so."""
TALKS = 3
LENGTH = 40
"""Tokens: a full block and one that is not."""
_PR_SET_PTRACER = 0x59616D61


def store_and_reload(path: Path) -> int:
    """Two starts over one folder. Every number that either finds is checked."""
    for start in range(2):
        try:
            bench = DiskBench(path, blocks=5)
        except ConfigError:
            return REFUSED
        for seed in range(TALKS):
            tokens = prompt(LENGTH, seed)
            bench.run(tokens)
            assert bench.run([*tokens, start]) >= 32  # memory serves, whatever the disk did
            if seed % 2:
                bench.flush()
        bench.close()
    return 0


def zygote() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store_and_reload(Path(folder))  # imports what is imported late
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            stop_and_work(Path(line.rstrip("\n")))
        os.waitpid(child, os.WUNTRACED)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def stop_and_work(path: Path) -> None:
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(2**64 - 1), 0, 0, 0)  # where Yama asks for it
        os.kill(os.getpid(), signal.SIGSTOP)
        code = store_and_reload(path)
    except BaseException:  # the process is forked: nobody above may see it
        traceback.print_exc()
    finally:
        os._exit(code)


def fill(path: Path) -> None:
    """Until the disk is full, and on; then a restart on the full disk."""
    tried, bench = 0, DiskBench(path, blocks=64)
    while bench.tier.stats.failed < 20:
        tokens = prompt(100, tried)
        bench.run(tokens)
        assert bench.run(tokens) == 99
        bench.flush()
        tried += 1
        assert tried < 2000, "1 MiB was never full"
    assert not list(path.glob("*.tmp"))
    full = os.statvfs(path)
    written = bench.tier.num_blocks
    for seed in range(tried):
        bench.run(prompt(100, seed))  # from disk as far as it went, computed again beyond
    bench.close()
    again = DiskBench(path, blocks=64)
    found = [again.run(prompt(100, seed)) for seed in range(tried)]
    assert again.tier.stats.broken == 0
    again.close()
    print(
        f"{full.f_bavail} pages free, {written} blocks written, {sum(n > 60 for n in found)} prefixes found"
    )


def serve(path: Path) -> None:
    """A real engine over the full disk says what it says without a cache."""
    from pelton.engine import Engine
    from pelton.kv import CacheFolder, DiskTier

    from ..test_prefix_cache import EXECUTOR, PLAN, ask, cold, sampled
    from ..test_prefix_cache import prompt as words
    from ..tiny import tiny_arena

    for _ in range(2):
        arena = tiny_arena(PLAN, 24)
        disk = DiskTier(CacheFolder(path), arena, bytes(32), 1 << 30, pause_seconds=0.0)
        running = Engine(EXECUTOR, arena, 512, 8, 512, disk=disk)
        assert running.prefixes is not None
        failed = 0
        for seed in np.arange(12).tolist():
            said, expected = ask(running, words(200, seed), sampled(5)), cold(words(200, seed), sampled(5))
            assert (said.tokens, said.numbers) == (expected.tokens, expected.numbers)
            assert disk.flush(60.0)
            failed = disk.stats.failed
        assert disk.stats.broken == 0
        running.prefixes.close()
        assert failed, "the disk was to be full"
    print(f"engine: {failed} writes failed")


if __name__ == "__main__":
    if sys.argv[1] == "zygote":
        zygote()
    else:
        fill(Path(sys.argv[2]))
        serve(Path(sys.argv[2]))
