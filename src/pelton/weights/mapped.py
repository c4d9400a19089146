"""A whole file as read-only bytes in memory, mapped rather than read."""

from __future__ import annotations

import mmap
import os
import stat
import sys
from pathlib import Path

import numpy as np

from ..errors import ModelFileError
from ..quant.format import U8


def map_file(path: Path) -> U8:
    """uint8 [bytes of the file], read-only; the map lives as long as any view of it.

    Raises ModelFileError where the file cannot be read, is empty, or is no regular file.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot be opened: {error}", subject=path) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError("not a regular file", subject=path)
        if status.st_size == 0:
            raise ModelFileError("the file is empty", subject=path, field="size", value=0)
        try:
            mapping = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelFileError(f"cannot be mapped: {error}", subject=path) from error
    finally:
        os.close(handle)
    return np.frombuffer(mapping, dtype=np.uint8)


def release_pages(data: U8) -> None:
    """Let the system take back the memory of a part of a mapped file; reading it again reads the file.

    Does nothing for bytes that are no mapped file. Whoever has packed a weight no longer needs them,
    and without this a model occupied its file's size on top of the packed weights.
    """
    base: object = data
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if not isinstance(base, mmap.mmap) or sys.platform == "win32":
        return
    offset = data.ctypes.data - np.frombuffer(base, dtype=np.uint8).ctypes.data
    first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (offset + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0:
        base.madvise(mmap.MADV_DONTNEED, first, length)
