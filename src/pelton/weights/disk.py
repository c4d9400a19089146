"""Writing to disk so that a crash, a full disk or a planted link does no harm."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import StoreError

CHUNK_BYTES = 1 << 18
GGUF_MAGIC = b"GGUF"
# EFBIG is what a process limit on file size gives: for the user it is the same lack of room.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
# Left free on the disk, so that a download does not leave the machine itself without room.
RESERVE_BYTES = 16 << 20


@contextmanager
def disk_errors(path: Path, *, remove: bool = False) -> Iterator[None]:
    """Turns an OSError inside into a StoreError that names `path`.

    With `remove`, a file at `path` is deleted if the disk ran full, to give the room back.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            if remove:
                path.unlink(missing_ok=True)
            raise StoreError("no room left on the disk", subject=path) from error
        raise StoreError(f"cannot be used: {error.strerror or error}", subject=path) from error


def guarded(home: Path, *parts: str) -> Path:
    """`home` joined with `parts`, after a check that no part leaves `home`.

    Raises StoreError if a part is not one plain component, or is a symbolic link on disk.
    """
    path = home
    for part in parts:
        if part in ("", ".", "..") or any(character in part for character in "/\\\0:"):
            raise StoreError("is not a plain name", subject="model", value=part)
        path = path / part
        with disk_errors(path):
            try:
                linked = stat.S_ISLNK(path.lstat().st_mode)
            except FileNotFoundError:
                linked = False
        if linked:
            raise StoreError(
                "is a symbolic link; the store follows none. Set PELTON_HOME to move it", subject=path
            )
    return path


def make_folder(path: Path) -> Path:
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def require_space(folder: Path, needed: int) -> None:
    """Raises StoreError unless `folder`'s disk has `needed` bytes free and a small reserve."""
    with disk_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < needed + RESERVE_BYTES:
        raise StoreError(
            f"needs {needed / 1e6:,.0f} MB of disk and has {free / 1e6:,.0f} MB; PELTON_HOME moves the store",
            subject=folder,
        )


def write_all(out: BinaryIO, chunk: bytes) -> None:
    """Writes to an unbuffered file, which may take a part of what it is given."""
    view = memoryview(chunk)
    while view:
        view = view[out.write(view) :]


def sync_file(path: Path) -> None:
    """Forces a file's contents to the disk."""
    with disk_errors(path), path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Forces a folder's entries to the disk, so that a rename survives a power cut."""
    if os.name != "posix":  # Windows cannot open a folder; its renames are journalled.
        return
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with disk_errors(path), path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def remove_tree(path: Path) -> None:
    """Deletes a folder, a file or a link (never what a link points to) if it is there."""
    with disk_errors(path):
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def tree_bytes(path: Path) -> int:
    """Bytes of all plain files in a folder; files that vanish meanwhile count as none."""
    total = 0
    for found in path.rglob("*"):
        try:
            total += found.lstat().st_size if found.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def begins_as_gguf(path: Path) -> bool:
    """Whether a plain file has GGUF's first four bytes."""
    with disk_errors(path), path.open("rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
