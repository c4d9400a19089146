"""What the store knows about a stored model: one manifest.json beside the model, written last.

A model whose manifest is missing, unreadable or at odds with the files is not there.
"""

from __future__ import annotations

import json
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import StoreError
from .disk import disk_errors, guarded, sync_file

ModelKind: TypeAlias = Literal["gguf", "folder", "synthetic"]

MANIFEST_NAME = "manifest.json"
_VERSION = 1
# A sharded model has some hundred files; a manifest of thousands is not one of ours.
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """One stored file: plain name, size in bytes, sha256 in hex."""

    name: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and isinstance(self.sha256, str) and type(self.size) is int):
            raise StoreError("has a field of the wrong type", subject=MANIFEST_NAME, field="files")


@dataclass(frozen=True)
class Manifest:
    """Source, format, date (UTC, ISO 8601) and files; `payload` is the file or folder that loads.

    `verified`: every byte was checked against a sha256 known before the download.
    """

    source: str
    format: ModelKind
    payload: str
    date: str
    verified: bool
    files: tuple[FileRecord, ...]

    def __post_init__(self) -> None:
        texts = (self.source, self.payload, self.date)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.verified, bool):
            raise StoreError("has a field of the wrong type", subject=MANIFEST_NAME)
        if self.format not in ("gguf", "folder"):
            raise StoreError("is not a format", subject=MANIFEST_NAME, field="format", value=self.format)
        if not self.files:
            raise StoreError("lists no file", subject=MANIFEST_NAME, field="files")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes and syncs the manifest; the caller has synced the files before and renames after."""
    path = guarded(folder, MANIFEST_NAME)
    document = {"version": _VERSION, **asdict(manifest)}
    with disk_errors(path, remove=True):
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sync_file(path)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a stored model whose files are all there in their full size.

    Raises StoreError for anything else, and never follows a symbolic link.
    """
    path = guarded(folder, MANIFEST_NAME)
    with disk_errors(path), path.open("rb") as file:
        body = file.read(_MAX_BYTES + 1)
    if len(body) > _MAX_BYTES:
        raise StoreError("is too large", subject=path)
    try:
        manifest = _from_document(json.loads(body))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError("is not a manifest", subject=path) from error
    payload = guarded(folder, manifest.payload)
    for record in manifest.files:
        _check_file(guarded(payload, record.name) if manifest.format == "folder" else payload, record)
    return manifest


def _from_document(document: Any) -> Manifest:
    fields = dict(document)
    if fields.pop("version") != _VERSION:
        raise ValueError("another version")
    files = tuple(FileRecord(**record) for record in fields.pop("files"))
    return Manifest(files=files, **fields)


def _check_file(path: Path, record: FileRecord) -> None:
    with disk_errors(path):
        found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise StoreError("is not a plain file", subject=path)
    if found.st_size != record.size:
        raise StoreError(f"has {found.st_size} bytes, the manifest says {record.size}", subject=path)
