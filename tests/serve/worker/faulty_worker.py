"""An engine process that suffers what a prompt tells it to. Only tests can start it: it is no option of
any server.

A prompt of two tokens [fault, position] makes the step fail that computes `position` of its sequence; or,
where that is SLOW, every step from there on take a while.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np

from pelton.engine import Engine
from pelton.exec.feedback import feed_back
from pelton.exec.protocol import F32, Executor, Forward, Until
from pelton.kv import KVArena
from pelton.loading import LoadedEngine
from pelton.plan import Plan
from pelton.serve.worker.frames import Start
from pelton.serve.worker.worker import load_as_told, main
from pelton.types import I32, Batch

KILL, SEGV, BUS, EXIT, RAISE, HANG, NAN, SLOW = range(200, 208)

_BOOT = (
    "import runpy, sys; file = sys.argv.pop(); sys.path[:] = sys.argv[2:];"
    " runpy.run_path(file, run_name='__main__')"
)


def faulty_command(descriptor: int) -> list[str]:
    """The command line of such a process."""
    return [sys.executable, "-c", _BOOT, str(descriptor), *sys.path, __file__]


def _segv() -> None:
    ctypes.string_at(0)


def _bus() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(1 << 16)
        with mmap.mmap(file.fileno(), 1 << 16) as view:
            file.truncate(0)
            view[1 << 15]


def _raise() -> None:
    raise MemoryError("what a user wrote")


_FAULTS: Mapping[int, Callable[[], None]] = {
    KILL: lambda: os.kill(os.getpid(), signal.SIGKILL),
    SEGV: _segv,
    BUS: _bus,
    EXIT: lambda: os._exit(3),
    RAISE: _raise,
    HANG: lambda: time.sleep(3600),
    SLOW: lambda: time.sleep(0.005),
}


class _Watched:
    """A forward pass with rows of logits that are not numbers, perhaps; those that follow are watched too."""

    def __init__(self, executor: Executor, inner: Forward, rows: list[int]) -> None:
        self._executor = executor
        self._inner = inner
        self._rows = rows
        self.advance, self.read, self.write = inner.advance, inner.read, inner.write
        self.batch, self.kv = inner.batch, inner.kv

    @property
    def taps(self) -> Mapping[str, F32]:
        return self._inner.taps

    def logits(self) -> F32:
        logits: F32 = self._inner.logits().copy()
        logits[self._rows, 7] = np.nan
        return logits

    def greatest(self) -> list[int]:
        return [-1 if row in self._rows else token for row, token in enumerate(self._inner.greatest())]

    def feed_back(self, passes: int, until: Until) -> list[list[int]]:
        return feed_back(self._executor, self, passes, until)


class FaultyExecutor:
    """Runs another executor until a sequence reaches the position its prompt names."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self._armed: dict[int, tuple[int, int]] = {}  # first block of a sequence -> fault, position

    @property
    def plan(self) -> Plan:
        return self._inner.plan

    @property
    def weight_bytes(self) -> Mapping[str, int]:
        return self._inner.weight_bytes

    def close(self) -> None:
        self._inner.close()

    def begin(self, batch: Batch, kv: KVArena) -> Forward:
        poisoned = []
        for span in range(batch.num_spans):
            rows = slice(int(batch.span_start[span]), int(batch.span_start[span + 1]))
            fault = self._fault(int(batch.tables[span, 0]), batch.tokens[rows], batch.positions[rows])
            if fault == NAN:
                poisoned += [i for i, row in enumerate(batch.outputs) if rows.start <= row < rows.stop]
            elif fault is not None:
                _FAULTS[fault]()
        return _Watched(self, self._inner.begin(batch, kv), poisoned)

    def _fault(self, block: int, tokens: I32, positions: I32) -> int | None:
        if positions[0] == 0:
            self._armed.pop(block, None)
            if len(tokens) == 2 and tokens[0] in range(KILL, SLOW + 1):
                self._armed[block] = int(tokens[0]), int(tokens[1])
        fault, position = self._armed.get(block, (None, -1))
        reached = position <= positions[-1] if fault == SLOW else position in positions
        return fault if reached else None


class CheckedEngine(Engine):
    """Counts its KV blocks and references whenever the last sequence has left."""

    def abort(self, sequence_id: int) -> None:
        super().abort(sequence_id)
        if not self.has_work:
            self.check()


def load(start: Start) -> LoadedEngine:
    loaded = load_as_told(start)
    loaded.engine.executor = FaultyExecutor(loaded.engine.executor)
    loaded.engine.__class__ = CheckedEngine
    return loaded


if __name__ == "__main__":
    main(load)
