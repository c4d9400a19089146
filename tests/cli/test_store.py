"""pull, list and rm over a real store that holds the real model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pelton.weights.catalogue import DEFAULT_MODEL, find_row
from pelton.weights.manifest import FileRecord, Manifest, write_manifest

from .calling import call, call_json, environment


@pytest.fixture
def stored(tmp_path: Path, real_model_path: Path) -> dict[str, str]:
    """A home whose store has the default model, as a finished pull leaves it."""
    row = find_row(DEFAULT_MODEL)
    assert row is not None
    folder = tmp_path / "models" / row.name
    folder.mkdir(parents=True)
    payload = folder / "model.gguf"
    try:
        payload.hardlink_to(real_model_path)
    except OSError:  # another file system
        shutil.copyfile(real_model_path, payload)
    record = FileRecord(payload.name, row.size, row.sha256)
    write_manifest(
        folder, Manifest(row.source, "gguf", payload.name, "2026-01-01T00:00:00+00:00", True, (record,))
    )
    return environment(tmp_path)


def test_an_empty_store_says_so_on_stderr(tmp_path: Path) -> None:
    result = call("list", env=environment(tmp_path))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "pelton pull" in result.stderr
    assert call_json("list", env=environment(tmp_path)) == []


@pytest.mark.parametrize("verb", ["list", "ls"])
def test_list_shows_what_is_there(verb: str, stored: dict[str, str]) -> None:
    result = call(verb, env=stored)
    (row,) = [line for line in result.stdout.splitlines() if line.startswith(DEFAULT_MODEL)]
    assert "93.81 MiB" in row
    (document,) = call_json(verb, env=stored)
    assert (document["name"], document["bytes"]) == (DEFAULT_MODEL, 98_362_432)


def test_the_catalogue_is_listed_without_a_store(tmp_path: Path) -> None:
    assert DEFAULT_MODEL in call("list", "--catalogue", env=environment(tmp_path)).stdout
    assert call_json("list", "--catalogue", env=environment(tmp_path))[0]["name"] == DEFAULT_MODEL


def test_pull_of_what_is_there_prints_its_path(stored: dict[str, str]) -> None:
    result = call("pull", env=stored)
    assert result.exit_code == 0
    assert Path(result.stdout.strip()).is_file()
    assert call_json("pull", DEFAULT_MODEL, env=stored)["verified"] is True


def test_pull_offline_of_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    result = call("pull", env=environment(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "offline" in result.stderr


def test_rm_frees_the_model(stored: dict[str, str]) -> None:
    assert call_json("rm", DEFAULT_MODEL, env=stored)["bytes_freed"] > 98_000_000
    assert call_json("list", env=stored) == []
    assert call("rm", DEFAULT_MODEL, env=stored).exit_code == 1
