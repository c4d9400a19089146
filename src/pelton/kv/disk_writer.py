"""A thread that writes blocks to disk, so that no step of the engine waits for one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic

from .arena import SavedBlocks
from .disk_files import CacheFolder
from .disk_format import BlockHeader, payload_digest


@dataclass(frozen=True, eq=False)
class Write:
    """A copy of one block on its way to `name`."""

    name: str
    header: BlockHeader
    saved: SavedBlocks

    @property
    def file_bytes(self) -> int:
        return self.header.file_bytes


@dataclass(frozen=True, eq=False)
class Remove:
    """A file that is not wanted any more."""

    name: str


class BlockWriter:
    """Does what it is given in order. `done` collects each Write with the error that ended it, or None.

    Holds at most `most_bytes` of copies; the folder is synced whenever nothing is left to do.
    """

    def __init__(self, folder: CacheFolder, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._jobs: deque[Write | Remove] = deque()
        self._changed = threading.Condition()
        self._bytes = 0
        self._busy = False
        self._closing = False
        self.done: deque[tuple[Write, OSError | None]] = deque()
        self._thread = threading.Thread(target=self._work, name="pelton-kv-writer", daemon=True)
        self._thread.start()

    def has_room(self, num_bytes: int) -> bool:
        """Whether a copy of so many bytes would be taken."""
        return self._bytes == 0 or self._bytes + num_bytes <= self._most_bytes

    def wait_for_room(self, num_bytes: int, until: float) -> bool:
        """The same, waiting for it up to a moment of `time.monotonic`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.has_room(num_bytes), max(0.0, until - monotonic()))

    def write(self, write: Write) -> None:
        self._put(write, write.file_bytes)

    def remove(self, name: str) -> None:
        self._put(Remove(name), 0)

    def flush(self, seconds: float) -> bool:
        """Wait until everything is on disk, at most so long; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._busy, seconds)

    def close(self, seconds: float) -> None:
        """Finish what can be finished in the time, then end."""
        self.flush(seconds)
        with self._changed:
            self._closing = True
            self._jobs.clear()
            self._changed.notify_all()
        self._thread.join(seconds + 1.0)  # a disk that hangs must not keep the process

    def _put(self, job: Write | Remove, num_bytes: int) -> None:
        with self._changed:
            self._jobs.append(job)
            self._bytes += num_bytes
            self._changed.notify_all()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            if isinstance(job, Write):
                self.done.append((job, _attempt(partial(self._write, job))))
            else:
                _attempt(partial(self._folder.remove, job.name))
            with self._changed:
                self._bytes -= job.file_bytes if isinstance(job, Write) else 0
                was_last = not self._jobs
                self._changed.notify_all()
            if was_last:
                _attempt(self._folder.sync_folder)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> Write | Remove | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._jobs) or self._closing)
            if self._closing:
                return None
            self._busy = True
            return self._jobs.popleft()

    def _write(self, write: Write) -> None:
        header = write.header.encode()
        parts = [array.data.cast("B") for array in (write.saved.keys, write.saved.values)]
        digest = payload_digest(header, parts)
        self._folder.write(write.name, [memoryview(header), *parts, memoryview(digest)])


def _attempt(action: Callable[[], None]) -> OSError | None:
    try:
        action()
    except OSError as error:
        return error
    return None
