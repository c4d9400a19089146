"""Switches denormals off for the calling thread, as torch.set_flush_denormal(True) and -ffast-math do."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_MXCSR = 28
"""Where the C library's fenv_t holds MXCSR on x86-64; 28 bytes of x87 state come before."""
_FLUSH = 0x8040
"""Denormal results and denormal operands become 0."""

needs_fenv = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="knows fenv_t of x86-64 Linux"
)


@contextmanager
def without_denormals() -> Iterator[None]:
    """In this block, on this thread."""
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    before, flushing = (ctypes.create_string_buffer(32) for _ in range(2))
    for state in (before, flushing):
        library.fegetenv(state)
    mode = ctypes.c_uint32.from_buffer(flushing, _MXCSR)
    mode.value |= _FLUSH
    library.fesetenv(flushing)
    try:
        yield
    finally:
        library.fesetenv(before)
