"""Any junk in config.json or in GGUF metadata either loads or raises one typed error naming the file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.errors import ModelFileError
from pelton.models.load import LoadedModel, load_gguf, load_model
from pelton.weights.fields import Fields
from pelton.weights.gguf import open_gguf
from pelton.weights.gguf_header import read_header
from pelton.weights.mapped import map_file

from .cases import CASES, Goldens, write_folder
from .gguf_files import GGUF_CASES, write_gguf

_NUMBERS = st.one_of(
    st.integers(-3, 130),
    st.integers(),
    st.floats(),
    st.sampled_from([1 << 31, 1 << 62, 10**30, 1e308, 1e-320, 0.0, -0.0]),
)
_JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), _NUMBERS, st.text(max_size=8), st.sampled_from(["yarn", "linear", "su"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=9), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=9,
)
GOLDENS = Goldens()


@pytest.fixture(scope="module")
def folders() -> Iterator[dict[str, Path]]:
    """Every case as a folder, written once; tests replace config.json only."""
    with tempfile.TemporaryDirectory() as root:
        yield {
            case: write_folder(Path(root, case), GOLDENS.config(case), GOLDENS.tensors(case))
            for case in CASES
        }


@given(case=st.sampled_from(sorted(CASES)), inner=st.booleans(), index=st.integers(0, 60), junk=_JUNK)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_config(folders: dict[str, Path], case: str, inner: bool, index: int, junk: object) -> None:
    config = GOLDENS.config(case)
    target: dict[str, Any] = config.get("rope_parameters", config) if inner else config
    target[sorted(target)[index % len(target)]] = junk
    (folders[case] / "config.json").write_text(json.dumps(config))
    _loads_or_names(folders[case], lambda: load_model(folders[case]))


def _loads_or_names(path: Path, load: Callable[[], LoadedModel]) -> None:
    try:
        load()
    except ModelFileError as error:
        subject = error.subject
    else:
        return
    assert subject is not None
    assert subject.startswith(str(path))


@pytest.fixture(scope="module")
def files() -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory() as root:
        yield {
            case: write_gguf(Path(root, f"{case}.gguf"), GOLDENS.config(case), GOLDENS.tensors(case))
            for case in GGUF_CASES
        }


@given(case=st.sampled_from(sorted(GGUF_CASES)), index=st.integers(0, 60), junk=_JUNK)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_gguf(files: dict[str, Path], case: str, index: int, junk: object) -> None:
    """Metadata of any type, behind the checks of the container."""
    file = open_gguf(files[case])
    values = dict(read_header(file.path, map_file(file.path)).metadata)
    values[sorted(values)[index % len(values)]] = junk
    changed = replace(file, metadata=Fields(file.path, MappingProxyType(values)))
    _loads_or_names(file.path, lambda: load_gguf(changed))
