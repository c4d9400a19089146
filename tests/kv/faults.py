"""Faults that the kernel makes: strace changes system calls, a small disk is full."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60.0

CALLS = {
    "openat": "openat",
    "write": "write,pwrite64",
    "rename": "?rename,?renameat,?renameat2",
    "fsync": "fsync,fdatasync",
    "unlink": "?unlink,?unlinkat",
    "read": "read,pread64",
    "list": "getdents64",
    "close": "close",
}
"""System calls by what they do; a `?` is for those that not every machine has."""


@dataclass(frozen=True)
class Traced:
    """A process that was traced: its exit status (-9: killed), how many calls were tampered with, and every
    call on a file, thread by thread."""

    status: int
    injected: int
    calls: list[str]

    def touching(self, name: str) -> list[str]:
        return [call for call in self.calls if name in call]


class Zygote:
    """Starts processes that store and reload, under strace. Skips the test where there is no strace, or
    where it may not attach."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._count = 0
        if shutil.which("strace") is None:
            pytest.skip("missing primitive: strace (ptrace of a child)")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kv.fault_child", "zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # nothing else runs where it forks
            text=True,
        )

    def run(self, folder: Path, kind: str, fault: str) -> Traced:
        """`fault` as strace has it: error=EIO:when=3 for the third call of each thread, 3+ and all later."""
        assert self._process.stdin is not None
        self._count += 1
        log = self._logs / f"{self._count}"
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        child = int(self._line())
        what = ["-e", "trace=" + ",".join(CALLS.values()), "-e", f"inject={CALLS[kind]}:{fault}"]
        tracer = subprocess.Popen(
            ["strace", "-f", "-ff", "-y", "-p", str(child), "-o", str(log), *what],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        os.kill(child, signal.SIGCONT if "attached" in said else signal.SIGKILL)
        status = int(self._line())
        tracer.communicate(timeout=SECONDS)
        if "attached" not in said:
            pytest.skip(f"missing primitive: ptrace ({said.strip()})")
        calls = [
            call for file in sorted(self._logs.glob(f"{log.name}.*")) for call in file.read_text().split("\n")
        ]
        killed = status == -signal.SIGKILL
        return Traced(status, sum("INJECTED" in call for call in calls) + killed, calls)

    def close(self) -> None:
        out: IO[str] | None = self._process.stdout
        assert self._process.stdin is not None
        assert out is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)
        out.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def failed_syncs(traced: Traced) -> list[str]:
    """Names, without suffix, of the cache files whose fsync did not work."""
    found = (re.search(r"^f\w*sync\(\d+<.*/([0-9a-f]{32})\.tmp>.*INJECTED", call) for call in traced.calls)
    return [match[1] for match in found if match]


def on_a_small_disk(command: list[str], at: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where `at` is a file system of 1 MiB that nobody else sees. Skips without one."""
    if shutil.which("unshare") is None:
        pytest.skip("missing primitive: unshare (mount namespaces)")
    mount = 'mount -t tmpfs -o size=1m none "$0" || exit 77; exec "$@"'
    found = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(at), *command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=ROOT,
    )
    if found.returncode == 77 or found.stderr.startswith("unshare:"):
        pytest.skip(f"missing primitive: a tmpfs in a mount namespace ({found.stderr.strip()})")
    return found
