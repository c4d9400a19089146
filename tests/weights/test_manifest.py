from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pelton.errors import StoreError
from pelton.weights.manifest import FileRecord, Manifest, read_manifest, write_manifest

RECORD = FileRecord("a.gguf", 4, "0" * 64)
MANIFEST = Manifest("hf:a/b:a.gguf", "gguf", "a.gguf", "2026-01-01T00:00:00+00:00", True, (RECORD,))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    folder = replace(
        MANIFEST, format="folder", payload="model", files=(RECORD, replace(RECORD, name="b", size=1))
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.gguf").write_bytes(b"GGUF")
    write_manifest(tmp_path, folder)
    with pytest.raises(StoreError, match="b: cannot be used"):
        read_manifest(tmp_path)
    (tmp_path / "model" / "b").write_bytes(b"1")
    assert read_manifest(tmp_path) == folder
    assert folder.size == 5


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").mkdir()
    size = (tmp_path / "a.gguf").stat().st_size
    write_manifest(tmp_path, replace(MANIFEST, files=(replace(RECORD, size=size),)))
    with pytest.raises(StoreError, match="not a plain file"):
        read_manifest(tmp_path)


def test_another_version_and_an_over_large_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(StoreError, match="not a manifest"):
        read_manifest(tmp_path)
    path.write_text(text + " " * (1 << 20))
    with pytest.raises(StoreError, match="too large"):
        read_manifest(tmp_path)
