"""Against a real server on the loopback interface that misbehaves on request."""

from __future__ import annotations

import base64
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from pelton.errors import StoreError
from pelton.weights.download import UnreachableError, download, read_page, shown_url
from pelton.weights.transport import Transport

from .package_server import PackageServer, serving, sha256

BODY = bytes(range(256)) * 6000
FILE = "/files/body"
QUICK = Transport(timeout_seconds=10, pause_seconds=0)


@pytest.fixture
def server() -> Iterator[PackageServer]:
    with serving(PackageServer({FILE: BODY})) as running:
        yield running


def fetch(server: PackageServer, part: Path, known: str | None = sha256(BODY)) -> str:
    return download(server.url + FILE, part, QUICK, sha256=known)


def test_a_whole_file_with_progress(server: PackageServer, tmp_path: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    part = tmp_path / "part"
    digest = download(server.url + FILE, part, QUICK, sha256=None, progress=lambda *call: calls.append(call))
    assert digest == sha256(BODY)
    assert part.read_bytes() == BODY
    assert calls[0] == (0, len(BODY))
    assert calls[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_a_cut_connection_is_resumed_where_it_stopped(server: PackageServer, tmp_path: Path) -> None:
    server.cuts = [600_000, 0, 300_000]
    fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY
    starts = [
        int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0 for asked in server.ranges_asked(FILE)
    ]
    assert len(starts) == 4
    assert 0 < starts[1] == starts[2] < starts[3]


def test_a_later_process_resumes_what_an_earlier_one_left(server: PackageServer, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(BODY[:1000])
    fetch(server, tmp_path / "part")
    assert server.ranges_asked(FILE) == ["bytes=1000-"]
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_complete_part_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(BODY)
    nowhere = "http://127.0.0.1:1/x"
    assert download(nowhere, tmp_path / "part", QUICK, sha256=sha256(BODY), size=len(BODY)) == sha256(BODY)


def test_without_ranges_it_starts_again(server: PackageServer, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [600_000]
    fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY


def test_without_a_checksum_nothing_is_resumed(server: PackageServer, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"other bytes")
    server.cuts = [600_000]
    assert fetch(server, tmp_path / "part", None) == sha256(BODY)
    assert server.ranges_asked(FILE) == [None, None]


@pytest.mark.parametrize("left", [b"?" * 1000, BODY + b"?", b"?" * len(BODY)])
def test_a_part_of_something_else_is_replaced(server: PackageServer, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "part").write_bytes(left)
    fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_wrong_checksum_is_refused_and_removed(server: PackageServer, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="sha256") as caught:
        fetch(server, tmp_path / "part", "0" * 64)
    assert not isinstance(caught.value, UnreachableError)
    assert not (tmp_path / "part").exists()


def test_a_wrong_size_is_refused_before_the_body(server: PackageServer, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"1536000 bytes, 5 are expected"):
        download(server.url + FILE, tmp_path / "part", QUICK, sha256=sha256(BODY), size=5)
    assert not (tmp_path / "part").exists()


def test_a_server_that_sends_more_than_the_size_is_cut_off(server: PackageServer, tmp_path: Path) -> None:
    server.lengths = False
    download(server.url + FILE, tmp_path / "part", QUICK, sha256=sha256(BODY[:70_000]), size=70_000)
    assert (tmp_path / "part").stat().st_size == 70_000


def test_passing_troubles_are_tried_again_and_lasting_ones_are_not(
    server: PackageServer, tmp_path: Path
) -> None:
    server.statuses = [503, 429]
    fetch(server, tmp_path / "part")
    server.statuses, server.seen = [403], []
    with pytest.raises(UnreachableError, match="403"):
        fetch(server, tmp_path / "other")
    assert len(server.seen) == 1
    with pytest.raises(UnreachableError, match="404"):
        download(server.url + "/files/none", tmp_path / "other", QUICK, sha256=None)


def test_a_server_that_always_cuts_is_given_up_and_the_part_kept(
    server: PackageServer, tmp_path: Path
) -> None:
    server.cuts = [300_000] + [0] * 20
    with pytest.raises(UnreachableError, match="cannot be downloaded"):
        fetch(server, tmp_path / "part")
    assert len(server.seen) == QUICK.attempts
    assert 0 < (tmp_path / "part").stat().st_size <= 300_000


def test_no_such_server(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="cannot be downloaded"):
        download("http://127.0.0.1:1/x", tmp_path / "part", QUICK, sha256=None)


def test_a_full_disk_is_named_and_the_part_removed(server: PackageServer, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(StoreError, match="no room left"):
            fetch(server, tmp_path / "part")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_disk_holds_is_refused_before_the_body(server: PackageServer, tmp_path: Path) -> None:
    server.redirects["/files/huge"] = server.url + FILE
    server.lengths = False
    with pytest.raises(StoreError, match="MB of disk"):
        download(server.url + "/files/huge", tmp_path / "part", QUICK, sha256=None, size=1 << 60)


def test_login_goes_to_the_named_host_only(server: PackageServer, tmp_path: Path) -> None:
    with serving(PackageServer({FILE: BODY})) as elsewhere:
        server.redirects["/files/moved"] = elsewhere.url + FILE
        url = server.url.replace("http://", "http://me:s%20ecret@") + "/files/moved"
        (tmp_path / "part").write_bytes(BODY[:1000])
        download(url, tmp_path / "part", QUICK, sha256=sha256(BODY))
        assert server.seen[0][1]["authorization"] == "Basic " + base64.b64encode(b"me:s ecret").decode()
        assert "authorization" not in elsewhere.seen[0][1]
        assert elsewhere.ranges_asked(FILE) == ["bytes=1000-"], "a redirect must not lose the range"
        assert "ecret" not in shown_url(url)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "data:,x", "gopher:x", "x"])
def test_other_schemes_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="not http"):
        download(url, tmp_path / "part", QUICK, sha256=None)


def test_a_redirect_never_leads_to_a_file(server: PackageServer) -> None:
    server.redirects["/files/trap"] = "file:///etc/hostname"
    with pytest.raises(StoreError):
        read_page(server.url + "/files/trap", QUICK, limit=1000, headers={})


def test_a_page_is_bounded(server: PackageServer) -> None:
    with pytest.raises(StoreError, match="larger than 1000"):
        read_page(server.url + FILE, QUICK, limit=1000, headers={})


def test_a_bad_certificate_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(StoreError, match=r"ca\.pem"):
        read_page("https://127.0.0.1:1/", Transport(tmp_path / "ca.pem"), limit=1, headers={})
