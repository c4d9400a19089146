"""The disk tier's folder: files that are there whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

_NAME = re.compile(r"[0-9a-f]{32}\.kv")
_TEMPORARY = re.compile(r"[0-9a-f]{32}\.tmp")


@dataclass(frozen=True)
class FoundFile:
    """A cache file by name; `time` orders files by when they were written."""

    name: str
    size: int
    time: int


class CacheFolder:
    """One folder, which one process may use at a time. Only files named as cache files are ever touched.

    A file is written under another name, synced, renamed, and the folder synced, so a crash leaves
    the old state or the new. Methods raise OSError; making one and scanning it, ConfigError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closed = False
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, f"cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise _unusable(path, "is in use by another process") from error

    def close(self) -> None:
        """Let others use the folder; a second time does nothing."""
        if not self._closed:
            self._closed = True
            os.close(self._lock)

    def scan(self) -> tuple[list[FoundFile], int]:
        """Cache files, and how many files are none and stay alone. What a crash left half written goes.

        Raises ConfigError, with the folder closed, where it cannot be listed.
        """
        found, strange = [], 0
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if _TEMPORARY.fullmatch(entry.name):
                        with suppress(OSError):  # the next start tries again
                            self.remove(entry.name)
                    elif (file := _cache_file(entry)) is not None:
                        found.append(file)
                    else:
                        strange += entry.name != "lock"
        except OSError as error:
            self.close()
            raise _unusable(self.path, f"cannot be listed: {error.strerror}") from error
        return found, strange

    def read(self, name: str, most: int) -> bytes:
        """The first `most` bytes of a file."""
        descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{name} is no plain file")
            parts, left = [], most
            while left > 0 and (part := file.read(left)):
                parts.append(part)
                left -= len(part)
        return b"".join(parts)

    def write(self, name: str, parts: Iterable[memoryview]) -> None:
        """Put a file there with these bytes; after any error nothing of it is left."""
        temporary = self.path / name.replace(".kv", ".tmp")
        try:
            descriptor = self.create(temporary)
            try:
                for part in parts:
                    self.write_all(descriptor, part)
                self.sync(descriptor)
            finally:
                os.close(descriptor)
            self.rename(temporary, self.path / name)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sync_folder(self) -> None:
        """Make renames and removals so far survive a power cut."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    # The system calls one by one: where a disk can fail.

    def create(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o600)

    def write_all(self, descriptor: int, data: memoryview) -> None:
        view = data.cast("B")
        while view:
            view = view[self.write_some(descriptor, view) :]

    def write_some(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)


def _cache_file(entry: os.DirEntry[str]) -> FoundFile | None:
    """None for what is no cache file, and for one that the disk says nothing about."""
    if not _NAME.fullmatch(entry.name):
        return None
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return FoundFile(entry.name, info.st_size, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else None


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(why, field="kv_cache_dir", value=str(path))
