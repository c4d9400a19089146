"""What keys and values depend on besides the tokens, as one number: whether a file's can be used here."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from .arena import KVLayout
from .disk_format import DIGEST_BYTES

SAMPLES = 64
SAMPLE_BYTES = 1 << 16


def kv_identity(layout: KVLayout, facts: Iterable[str], files: Iterable[Path]) -> bytes:
    """32 bytes that differ if the layout, a fact (plan, executor, instruction set, versions) or a file does.

    Of a file of weights, which can have many gigabytes, the name, the size, the time of its last change and
    64 samples of 64 KiB count. Raises OSError.
    """
    digest = blake2b(digest_size=DIGEST_BYTES)
    for fact in (repr(layout), *facts):
        _add(digest, fact.encode())
    for path in sorted(files):
        info = path.stat()
        _add(digest, f"{path.name} {info.st_size} {info.st_mtime_ns}".encode())
        with path.open("rb") as file:
            for sample in range(SAMPLES):
                file.seek(max(0, info.st_size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                _add(digest, file.read(SAMPLE_BYTES))
    return digest.digest()


def _add(digest: blake2b, part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
