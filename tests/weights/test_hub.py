"""Against a hub on the loopback interface that answers as the real one's documented API does."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pelton.errors import StoreError
from pelton.weights.hub import HubFile, choose_files, connect
from pelton.weights.sources import HubSource
from pelton.weights.store import ModelStore
from pelton.weights.transport import Transport

from .package_server import PackageServer, model_bytes, serving, sha256

MODEL = model_bytes(600_000)
COMMIT = "c0ffee" * 6 + "c0ff"
FOLDER = {
    "config.json": b"{}",
    "tokenizer.json": b'{"model": {}}',
    "model.safetensors": MODEL,
    "modeling_custom.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "onnx/model.json": b"{}",
    "manifest.json": b"not the store's own",
}


def blob_id(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def publish(server: PackageServer, repository: str, files: dict[str, bytes]) -> list[dict[str, object]]:
    """Puts a repository on the server; returns its listing, which a test may falsify."""
    siblings: list[dict[str, object]] = []
    for name, body in files.items():
        server.files[f"/{repository}/resolve/{COMMIT}/{name}"] = body
        sibling: dict[str, object] = {"rfilename": name, "size": len(body), "blobId": blob_id(body)}
        if len(body) > 1000:
            sibling["lfs"] = {"sha256": sha256(body), "size": len(body), "pointerSize": 130}
        siblings.append(sibling)
    relist(server, repository, siblings)
    return siblings


def relist(server: PackageServer, repository: str, siblings: list[dict[str, object]]) -> None:
    listing = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings})
    server.files[f"/api/models/{repository}/revision/main"] = listing.encode()


@pytest.fixture
def server() -> Iterator[PackageServer]:
    with serving(PackageServer()) as running:
        yield running


@pytest.fixture
def store(server: PackageServer, tmp_path: Path) -> ModelStore:
    pytest.importorskip("huggingface_hub")
    return ModelStore(
        tmp_path / "home",
        transport=Transport(timeout_seconds=10, pause_seconds=0, attempts=2),
        hub_endpoint=server.url,
        notify=lambda text: None,
    )


def test_one_gguf_file(server: PackageServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    publish(server, "org/name", {"sub/A.gguf": MODEL, "B.gguf": MODEL[::-1]})
    calls: list[tuple[int, int | None]] = []
    model = store.resolve("hf:org/name:sub/A.gguf", lambda *call: calls.append(call))
    assert model.path is not None
    assert (model.path.name, model.kind, model.verified) == ("A.gguf", "gguf", True)
    assert model.path.read_bytes() == MODEL
    assert calls[-1] == (len(MODEL), len(MODEL))
    assert {headers["authorization"] for _, headers in server.seen} == {"Bearer hf_secret"}
    assert replace(store, offline=True).resolve("hf:org/name:sub/A.gguf").path == model.path
    (listed,) = store.list()
    assert listed.source == "hf:org/name:sub/A.gguf"


def test_the_token_stays_with_the_hub_when_it_redirects_to_another_server(
    server: PackageServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    publish(server, "org/name", {"A.gguf": MODEL})
    with serving(PackageServer({"/files/A.gguf": MODEL})) as elsewhere:
        server.redirects[f"/org/name/resolve/{COMMIT}/A.gguf"] = elsewhere.url + "/files/A.gguf"
        assert store.pull("hf:org/name").verified
        (request,) = elsewhere.seen
    assert "authorization" not in request[1]


def test_a_folder_without_code_or_pickles(server: PackageServer, store: ModelStore) -> None:
    publish(server, "org/name", FOLDER)
    calls: list[tuple[int, int | None]] = []
    model = store.resolve("hf:org/name", lambda *call: calls.append(call))
    assert model.path is not None
    assert (model.kind, model.verified) == ("folder", True)
    expected = {"config.json", "tokenizer.json", "model.safetensors", "manifest.json"}
    assert {path.name for path in model.path.iterdir()} == expected
    assert all((model.path / name).read_bytes() == FOLDER[name] for name in expected)
    total = sum(len(FOLDER[name]) for name in expected)
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_a_cut_folder_resumes_the_file_it_was_at(server: PackageServer, store: ModelStore) -> None:
    publish(server, "org/name", FOLDER)
    big = f"/org/name/resolve/{COMMIT}/model.safetensors"
    server.cuts = [99_999, 99_999, 300_000, 0]
    with pytest.raises(StoreError, match="cannot be downloaded"):
        store.pull("hf:org/name")
    assert store.list() == ()
    server.seen.clear()
    server.cuts = []
    assert store.pull("hf:org/name").verified
    (asked,) = server.ranges_asked(big)
    assert asked is not None


@pytest.mark.parametrize("falsified", ["lfs", "blobId", "size"])
def test_bytes_the_hub_did_not_publish_are_refused(
    server: PackageServer, store: ModelStore, falsified: str
) -> None:
    siblings = publish(server, "org/name", FOLDER)
    changes: dict[str, dict[str, object]] = {
        "lfs": {"lfs": {"sha256": "0" * 64}},
        "blobId": {"blobId": "0" * 40},
        "size": {"size": 7},
    }
    position = 2 if falsified == "lfs" else 0
    siblings[position].update(changes[falsified])
    relist(server, "org/name", siblings)
    with pytest.raises(StoreError):
        store.pull("hf:org/name")
    assert store.list() == ()


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"[]",
        b'{"sha": "../x", "siblings": []}',
        b'{"sha": "abc", "siblings": [3]}',
        b'{"sha": "abc", "siblings": [{"rfilename": "a.gguf"}]}',
        b'{"sha": "abc", "siblings": [{"rfilename": "a.gguf", "size": 1, "lfs": {"sha256": "../x"}}]}',
    ],
)
def test_a_hostile_listing_is_refused(server: PackageServer, store: ModelStore, body: bytes) -> None:
    server.files["/api/models/org/name/revision/main"] = body
    with pytest.raises(StoreError, match="org/name"):
        store.pull("hf:org/name")


def test_file_names_that_climb_are_never_taken(server: PackageServer, store: ModelStore) -> None:
    publish(server, "org/name", {"../../evil.gguf": MODEL, "/abs.gguf": MODEL, "a\\b.gguf": MODEL})
    with pytest.raises(StoreError, match="GGUF files there: none"):
        store.pull("hf:org/name")


def test_a_gguf_name_on_other_bytes_is_refused(server: PackageServer, store: ModelStore) -> None:
    publish(server, "org/name", {"A.gguf": b"PK" + MODEL})
    with pytest.raises(StoreError, match="not a GGUF"):
        store.pull("hf:org/name")
    assert not list(store.home.rglob("*.part"))


def test_an_unknown_repository_is_named(store: ModelStore) -> None:
    with pytest.raises(StoreError, match=r"org/none.*404"):
        store.pull("hf:org/none")


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(StoreError, match=r"pip install 'pelton\[hf\]'"):
        connect(None)


def listed(*names: str) -> tuple[HubFile, ...]:
    return tuple(HubFile(name, 1, None, None) for name in names)


def test_what_a_bare_repository_means() -> None:
    bare = HubSource("org/name", None)
    assert [file.name for file in choose_files(bare, listed("x.gguf", "README.md"))] == ["x.gguf"]
    both = listed("x.gguf", "config.json", "model.safetensors")
    assert [file.name for file in choose_files(bare, both)] == ["config.json", "model.safetensors"]
    with pytest.raises(StoreError, match=r"hf:ORG/NAME:FILE; GGUF files there: a\.gguf, b\.gguf"):
        choose_files(bare, listed("a.gguf", "b.gguf"))
    with pytest.raises(StoreError, match=r"x\.gguf"):
        choose_files(HubSource("org/name", "X.gguf"), listed("x.gguf"))
