"""The harness's end of a worker: starts it, asks it, and lets it run only while it is asked.

All workers stay loaded, so that tests can take turns between engines at once. One that is not being asked is
stopped (SIGSTOP), as is all it started: nothing of an idle engine spins beside the one that is measured. Each
has half a second after its answer first, for what engines do between requests. A worker has a process group
of its own in this session, so that if the harness is killed, the kernel wakes and ends what is stopped.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType

import psutil
from environments import last_words

MOST_REPLY_BYTES = 1 << 20
LOAD_SECONDS = 900.0
TEST_SECONDS = 300.0
SETTLE_SECONDS = 0.5

Reply = dict[str, float]


class Hole(Exception):
    """Why a figure could not be had."""


class WorkerProcess:
    """One running worker, stopped between calls. Use as a context; leaving it ends the process."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._buffer = b""
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **variables},
                preexec_fn=os.setpgrp,
            )
        self.version = ""
        self.load_seconds = 0.0

    def load(self) -> None:
        """Wait until the model is loaded. Raises Hole."""
        reply = self._reply(LOAD_SECONDS)
        self.version, self.load_seconds = str(reply["version"]), float(str(reply["load_seconds"]))
        self._signal(signal.SIGSTOP)

    def ask(self, request: Mapping[str, object]) -> Reply:
        """What a worker answers to a request of its protocol. Raises Hole if it cannot, or died of it."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise Hole("was ended, since it did not answer an earlier test")
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            reply = self._reply(TEST_SECONDS)
            sleep(SETTLE_SECONDS)
        except BrokenPipeError:
            raise Hole(self._ending()) from None
        finally:
            self._signal(signal.SIGSTOP)
        return {name: float(str(value)) for name, value in reply.items()}

    def peak_memory(self) -> int:
        """Most bytes that it and what it started had in memory, each process's own peak added up."""
        total = 0
        for process in [psutil.Process(self._process.pid), *self._children()]:
            with suppress(OSError, psutil.Error):
                status = Path(f"/proc/{process.pid}/status").read_text()
                total += int(status.split("VmHWM:")[1].split()[0]) << 10
        return total

    def close(self) -> None:
        for process in self._children():
            with suppress(psutil.Error):
                process.kill()
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                pipe.close() if pipe is not None else None

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reply(self, seconds: float) -> dict[str, object]:
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - monotonic()))
            if not ready:
                self.close()
                raise Hole(f"no answer within {seconds:.0f} s")
            part = os.read(descriptor, 1 << 16)
            if not part or len(self._buffer) + len(part) > MOST_REPLY_BYTES:
                raise Hole(self._ending())
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply = json.loads(line)
        if not isinstance(reply, dict):
            raise Hole("its answer is no object")
        if "hole" in reply:
            raise Hole(str(reply["hole"]).replace("|", "/"))
        return reply

    def _ending(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        words = last_words(self._log.read_text(errors="replace")[-4000:])
        return f"ended with code {self._process.poll()}: {words}"

    def _children(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def _signal(self, number: int) -> None:
        for process in self._children():
            with suppress(psutil.Error):
                process.send_signal(number)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
