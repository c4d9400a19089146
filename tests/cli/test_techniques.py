"""The registry as the command line shows it."""

from __future__ import annotations

import pytest

from pelton.techniques import FAMILIES, TECHNIQUES

from .calling import call, call_json


def test_every_technique_is_listed() -> None:
    lines = call("techniques").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [row.name for row in TECHNIQUES]
    assert [row["name"] for row in call_json("techniques")] == [row.name for row in TECHNIQUES]


@pytest.mark.parametrize("name", [row.name for row in TECHNIQUES])
def test_one_technique_is_shown_whole(name: str) -> None:
    (document,) = call_json("techniques", name)
    shown = call("techniques", name).stdout
    for field in ("name", "family", "title", "switch", "test", "source"):
        assert document[field] in shown
    assert ("exact" if document["exact"] else "lossy") in shown
    assert document["figure"]["metric"] in shown


def test_families_filter() -> None:
    for family in FAMILIES:
        rows = call_json("techniques", "--family", family)
        assert rows
        assert {row["family"] for row in rows} == {family}
    assert call("techniques", "--family", "nonsense").exit_code == 1
