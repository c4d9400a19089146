"""Fetches a GGUF file or a model folder from the Hugging Face hub.

The huggingface_hub package (an extra) says where the hub is and who the user is; listing and
download go through our own transport, so that resume, checksums and errors are those of every
other source. Only weights, tokenizer and configuration files are taken: never code or pickles.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .disk import (
    begins_as_gguf,
    disk_errors,
    make_folder,
    require_space,
    sync_file,
    sync_folder,
)
from .download import download, read_page
from .manifest import FileRecord
from .sources import HubSource, is_plain_inner_path
from .transport import Progress, PullContext, Transport

_MAX_LISTING_BYTES = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FOLDER_SUFFIXES = (".json", ".safetensors", ".jinja", ".model", ".txt")


@dataclass(frozen=True)
class HubFile:
    """One file of a repository at one commit. `sha256` is known for large files, `blob` for the rest."""

    name: str
    size: int
    sha256: str | None
    blob: str | None


@dataclass(frozen=True)
class Hub:
    """An endpoint and the headers that identify the user there."""

    endpoint: str
    headers: Mapping[str, str]


def connect(endpoint: str | None) -> Hub:
    """The configured hub, or the one at `endpoint`. Raises StoreError if the extra is missing."""
    try:
        importlib.import_module("huggingface_hub")
        utilities: Any = importlib.import_module("huggingface_hub.utils")
        constants: Any = importlib.import_module("huggingface_hub.constants")
    except ImportError as error:
        raise StoreError(
            "hf: models need an extra: pip install 'pelton[hf]'", subject="huggingface_hub"
        ) from error
    headers = utilities.build_hf_headers(library_name="pelton")
    return Hub(endpoint or str(constants.ENDPOINT), headers)


def fetch_from_hub(
    source: HubSource, hub: Hub, ready: Path, pull: PullContext
) -> tuple[str, tuple[FileRecord, ...], bool]:
    """Downloads the chosen files into `pull.work`, then moves them all to `ready`.

    Returns the payload's name in `ready` (the GGUF file, or "model", a folder), the files'
    records, and whether every file was checked against a checksum the hub published.
    """
    commit, listed = list_files(source, hub, pull.transport)
    chosen = choose_files(source, listed)
    total, done = sum(file.size for file in chosen), 0
    present = sum(path.stat().st_size for path in pull.work.glob("*.part"))
    require_space(pull.work, max(0, total - present))
    parts = []
    for file in chosen:
        inner = replace(pull, progress=_shifted(pull.progress, done, total))
        parts.append(_fetch_file(source, hub, commit, file, inner))
        done += file.size
    single = chosen[0].name.lower().endswith(".gguf")
    payload = chosen[0].name.rpartition("/")[2] if single else "model"
    folder = ready if single else make_folder(ready / payload)
    records = []
    for file, (part, digest) in zip(chosen, parts, strict=True):
        name = file.name.rpartition("/")[2]
        with disk_errors(part):
            part.replace(folder / name)
        records.append(FileRecord(name, file.size, digest))
    if not single:
        sync_folder(folder)
    return payload, tuple(records), all(file.sha256 or file.blob for file in chosen)


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _total: progress(before + done, total)


def list_files(source: HubSource, hub: Hub, transport: Transport) -> tuple[str, tuple[HubFile, ...]]:
    """The repository's newest commit and its files, those with unusual names left out."""
    url = f"{hub.endpoint}/api/models/{source.repository}/revision/main?blobs=true"
    body, _ = read_page(url, transport, limit=_MAX_LISTING_BYTES, headers=hub.headers)
    try:
        document = json.loads(body)
        commit = str(document["sha"])
        files = tuple(_hub_file(sibling) for sibling in document["siblings"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError("the hub's answer is not a file list", subject=source) from error
    if not commit.isalnum():
        raise StoreError("is not a commit", subject=source, field="sha", value=commit)
    return commit, tuple(file for file in files if is_plain_inner_path(file.name) and file.size >= 0)


def _hub_file(sibling: Mapping[str, Any]) -> HubFile:
    sha256, blob = (sibling.get("lfs") or {}).get("sha256"), sibling.get("blobId")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError("not a sha256")
    return HubFile(
        str(sibling["rfilename"]), int(sibling["size"]), sha256, None if blob is None else str(blob)
    )


def choose_files(source: HubSource, files: tuple[HubFile, ...]) -> tuple[HubFile, ...]:
    """The one GGUF file asked for, or the model's safetensors folder, or the only GGUF file.

    Raises StoreError that lists the repository's GGUF files if it is not clear what is meant.
    """
    models = [file for file in files if file.name.lower().endswith(".gguf")]
    if source.file is not None:
        fits = [file for file in models if file.name == source.file]
        if fits:
            return (fits[0],)
    else:
        top = [file for file in files if "/" not in file.name and file.name.endswith(_FOLDER_SUFFIXES)]
        names = {file.name for file in top}
        if "config.json" in names and any(name.endswith(".safetensors") for name in names):
            return tuple(sorted(top, key=lambda file: file.name))
        if len(models) == 1:
            return (models[0],)
    listed = ", ".join(file.name for file in models[:20]) or "none"
    raise StoreError(f"name one file as hf:ORG/NAME:FILE; GGUF files there: {listed}", subject=source)


def _fetch_file(
    source: HubSource, hub: Hub, commit: str, file: HubFile, pull: PullContext
) -> tuple[Path, str]:
    """The downloaded part and its sha256."""
    url = f"{hub.endpoint}/{source.repository}/resolve/{commit}/{file.name}"
    part = pull.work / f"{hashlib.sha256(f'{file.name} {file.sha256 or commit}'.encode()).hexdigest()}.part"
    digest = download(
        url,
        part,
        pull.transport,
        sha256=file.sha256,
        size=file.size,
        headers=hub.headers,
        progress=pull.progress,
    )
    problem = _problem(file, part)
    if problem:
        part.unlink()
        raise StoreError(problem, subject=source, field=file.name)
    sync_file(part)
    return part, digest


def _problem(file: HubFile, part: Path) -> str | None:
    if file.sha256 is None and file.blob is not None and _git_blob_id(part) != file.blob:
        return "does not have the git blob id the hub published; removed"
    if file.name.lower().endswith(".gguf") and not begins_as_gguf(part):
        return "is not a GGUF file; removed"
    return None


def _git_blob_id(path: Path) -> str:
    """git's name for a file's contents: sha1 of a header and the bytes. Only small files have one."""
    body = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
