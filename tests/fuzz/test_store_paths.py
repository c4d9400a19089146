"""No name, however hostile, makes the store write, delete or follow anything outside its home."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.errors import StoreError
from pelton.weights.catalogue import CatalogueRow
from pelton.weights.disk import guarded
from pelton.weights.manifest import FileRecord, Manifest, read_manifest, write_manifest
from pelton.weights.pip_settings import PackageIndex
from pelton.weights.store import ModelStore
from pelton.weights.transport import Transport

HOSTILE = [
    "../x",
    "..",
    ".",
    "/",
    "/etc/passwd",
    "//x",
    "~root/x",
    "a/../../x",
    "a\\..\\x",
    "a\0b",
    "\0",
    "x" * 4096,
    "x" * 100_000,
    "ünïcode",
    "\ud800",
    "con",
    "C:\\x",
    "tiny\n",
    " tiny",
    "TINY",
    "-rf",
    "pypi:../../x==1#a.gguf",
    "pypi:x==../1#a.gguf",
    "pypi:x==1#../../a.gguf",
    "hf:../..:a.gguf",
    "hf:a/b:../../../c.gguf",
    "models",
    "tiny/../tiny",
    "manifest.json",
]
ROW = CatalogueRow("tiny", "pypi:tiny==1#a.gguf", "0" * 64, 1, "", "")


def make_store(folder: Path) -> ModelStore:
    """A store with one model, beside files that must survive. It has no index to ask."""
    (folder / "outside").mkdir(parents=True)
    (folder / "outside" / "manifest.json").write_text("precious")
    (folder / "x").write_text("precious")
    store = ModelStore(
        folder / "home",
        package_index=PackageIndex(index_urls=()),
        transport=Transport(attempts=1, pause_seconds=0),
        catalogue=(ROW,),
        offline=True,
        notify=lambda text: None,
    )
    model = store.home / "models" / "mine"
    model.mkdir(parents=True)
    (model / "a.gguf").write_bytes(b"GGUF")
    record = FileRecord("a.gguf", 4, "0" * 64)
    write_manifest(model, Manifest("hf:a/b", "gguf", "a.gguf", "2026-01-01", False, (record,)))
    return store


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }


def attack(store: ModelStore, name: str) -> None:
    for act in (store.resolve, store.pull, store.remove):
        with pytest.raises(StoreError):
            act(name)


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:20])
def test_hostile_names_change_nothing(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path)
    before = snapshot(tmp_path)
    attack(store, name)
    assert snapshot(tmp_path) == before


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelStore, Path, dict[str, bytes | None]]:
    folder = tmp_path_factory.mktemp("shared")
    return make_store(folder), folder, snapshot(folder)


_PIECES = st.sampled_from(
    ["..", "/", "\\", "\0", "a", "mine", "tiny", ":", "#", "==", "pypi:", "hf:", ".gguf", "~", "%2e"]
)
_NAMES = st.one_of(st.text(max_size=40), st.lists(_PIECES, max_size=10).map("".join))


@settings(max_examples=300)
@given(_NAMES.filter(lambda name: name not in ("mine", "a") and not name.startswith("synthetic:")))
def test_random_names_change_nothing(
    shared: tuple[ModelStore, Path, dict[str, bytes | None]], name: str
) -> None:
    store, folder, before = shared
    attack(store, name)
    assert snapshot(folder) == before


@settings(max_examples=200)
@given(st.text(max_size=20))
def test_a_guarded_path_is_a_direct_child_or_refused(part: str) -> None:
    home = Path("/nonexistent-home")
    try:
        path = guarded(home, part)
    except StoreError:
        return
    assert Path(os.path.normpath(path)).parent == home


@pytest.mark.parametrize(
    "link", ["models", "models/tiny", "locks", "locks/tiny.lock", "downloads", "downloads/tiny"]
)
def test_links_planted_in_the_store_are_refused(tmp_path: Path, link: str) -> None:
    store = make_store(tmp_path)
    planted = store.home / link
    if link == "models":
        (store.home / "models").rename(store.home / "old")
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(tmp_path / ("x" if link.endswith("lock") else "outside"))
    before = snapshot(tmp_path / "outside")
    online = replace(store, offline=False)
    with pytest.raises(StoreError, match="symbolic link"):
        online.pull("tiny")
    with pytest.raises(StoreError):
        online.remove("tiny")
    assert snapshot(tmp_path / "outside") == before
    assert (tmp_path / "x").read_text() == "precious"


def test_a_linked_model_is_passed_over_in_the_list(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    (store.home / "models" / "evil").symlink_to(store.home / "models" / "mine")
    (store.home / "models" / "a:b").mkdir()
    (store.home / "models" / "stray").write_text("")
    assert [model.name for model in store.list()] == ["mine"]


@pytest.mark.parametrize("payload", ["../../x", "/etc/passwd", "..", "", "a/b", "a\0b"])
def test_a_manifest_cannot_lead_outside(tmp_path: Path, payload: str) -> None:
    store = make_store(tmp_path)
    folder = store.home / "models" / "mine"
    record = FileRecord(payload, 8, "0" * 64)
    write_manifest(folder, Manifest("hf:a/b", "gguf", payload, "", False, (record,)))
    with pytest.raises(StoreError):
        read_manifest(folder)
    assert store.list() == ()


@settings(max_examples=300)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["version", "source", "format", "payload", "date", "verified", "files", "name", "size"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_manifest_or_a_store_error(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    folder = tmp_path_factory.getbasetemp() / "manifest"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(StoreError):
        read_manifest(folder)
