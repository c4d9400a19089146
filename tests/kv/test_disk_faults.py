"""The disk tier under faults that the kernel makes (faults.py): a block less, never a wrong number."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pelton.kv.disk_format import checked_payload, decode_header

from .disk_bench import DiskBench, prompt
from .fault_child import LENGTH, REFUSED, TALKS
from .faults import CALLS, Traced, Zygote, failed_syncs, on_a_small_disk

WRITING = ("openat", "write", "rename", "fsync")
FAILURES = [(kind, code) for kind in WRITING for code in ("ENOSPC", "EIO", "EDQUOT")]
FAILURES += [(kind, "EIO") for kind in ("unlink", "read", "list")]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote(tmp_path_factory.mktemp("strace"))
    yield made
    made.close()


def check_folder(folder: Path, *, whole: bool = True) -> int:
    """Old or new: every file is whole; a start collects what was half written and finds right numbers.

    Returns how many files it found broken, which are those without a parent if all are whole.
    """
    for file in folder.glob("*.kv") if whole else ():
        data = file.read_bytes()
        checked_payload(data, decode_header(data))
    bench = DiskBench(folder)
    for seed in range(TALKS):
        bench.run([*prompt(LENGTH, seed), 9])
    bench.flush()
    assert not list(folder.glob("*.tmp"))
    bench.close()
    return bench.tier.stats.broken


def check_syncs(traced: Traced, folder: Path) -> None:
    """A file whose fsync failed is gone, and nothing was done with it but to close and remove it."""
    for name in failed_syncs(traced):
        after = [call.split("(")[0] for call in traced.touching(name)]
        assert after.count("fsync") == 1
        rest = after[after.index("fsync") + 1 :]
        assert rest[:2] == ["close", "unlink"]
        assert set(rest) == {"close", "unlink"}
        assert not list(folder.glob(f"{name}.*"))


def inject(zygote: Zygote, folder: Path, kind: str, code: str, *, persistent: bool) -> int:
    """Fail each call of a kind in turn, until one is not reached any more; how many runs had a fault."""
    for number in count(1):
        at = folder / f"{kind}-{code}-{number}"
        traced = zygote.run(at, kind, f"error={code}:when={number}{'+' if persistent else ''}")
        assert traced.status in (0, REFUSED), traced.calls[-20:]
        assert traced.status == 0 or kind in ("openat", "list"), "only opening a folder may refuse"
        check_syncs(traced, at)
        if at.exists():
            check_folder(at)
        if not traced.injected:
            return number - 1
    raise AssertionError("calls without end")


@pytest.mark.parametrize("kind", WRITING)
def test_a_call_that_fails_is_a_block_less(zygote: Zygote, tmp_path: Path, kind: str) -> None:
    assert inject(zygote, tmp_path, kind, "ENOSPC", persistent=False) > 3


@pytest.mark.load
@pytest.mark.parametrize(("kind", "code"), FAILURES)
@pytest.mark.parametrize("persistent", [False, True])
def test_every_call_fails_once_and_for_good(
    zygote: Zygote, tmp_path: Path, kind: str, code: str, persistent: bool
) -> None:
    assert inject(zygote, tmp_path, kind, code, persistent=persistent) > 0


def kill(zygote: Zygote, folder: Path, kind: str, number: int) -> bool:
    """Kill a process before one of its calls; whether it got there."""
    traced = zygote.run(folder, kind, f"signal=SIGKILL:when={number}")
    assert traced.status in (0, -signal.SIGKILL), traced.calls[-20:]
    assert check_folder(folder) == 0, "a crash is no damage"
    return traced.status != 0


@pytest.mark.parametrize("kind", ["write", "rename", "fsync"])
def test_killed_at_a_call_nothing_is_damaged(zygote: Zygote, tmp_path: Path, kind: str) -> None:
    assert all(kill(zygote, tmp_path / f"{number}", kind, number) for number in (1, 2, 4))


@pytest.mark.load
@pytest.mark.parametrize("kind", CALLS)
def test_killed_at_every_call_nothing_is_damaged(zygote: Zygote, tmp_path: Path, kind: str) -> None:
    for number in count(1):
        folder = tmp_path / f"{number}"
        if not kill(zygote, folder, kind, number):
            break
        kill(zygote, folder, kind, number)  # what starts over after a crash is killed too
    assert number > 1


def test_a_disk_that_lies_is_found_out(zygote: Zygote, tmp_path: Path) -> None:
    """Writes that say they were done and were not leave files that are damaged, and seen to be."""
    broken = 0
    for number in (1, 2, 3, 4, 7):
        at = tmp_path / f"{number}"
        assert zygote.run(at, "write", f"retval=1:when={number}").status == 0
        broken += check_folder(at, whole=False)
    assert broken > 0


def test_a_disk_that_is_full_costs_no_answer(tmp_path: Path) -> None:
    found = on_a_small_disk([sys.executable, "-m", "tests.kv.fault_child", "fill", str(tmp_path)], tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("0 pages free")
    assert "engine: " in found.stdout
