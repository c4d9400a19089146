"""StructuredOutputs: what is refused where a request enters, and what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton import SamplingParams, StructuredOutputs
from pelton.errors import RequestError
from pelton.structured import MAX_CHARACTERS, MAX_CHOICES, MAX_DEPTH


def test_a_schema_is_kept_as_text_with_its_properties_in_order() -> None:
    schema = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}}
    kept = StructuredOutputs(json=schema)
    text = '{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}}}'
    assert kept.json == text
    assert kept == StructuredOutputs(json=text)
    assert kept.kind == "json"
    assert hash(kept) == hash(StructuredOutputs(json=schema))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"json_object": True}, "json_object"),
        ({"regex": "a+"}, "regex"),
        ({"choice": ["a", "b", "a"]}, "choice"),
        ({"grammar": "root ::= [a-z]"}, "grammar"),
    ],
)
def test_each_kind(given: dict[str, Any], kind: str) -> None:
    assert StructuredOutputs(**given).kind == kind


def test_choices_are_a_tuple_without_repetitions() -> None:
    assert StructuredOutputs(choice=["b", "a", "b"]).choice == ("b", "a")


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


CYCLE: dict[str, object] = {}
CYCLE["items"] = CYCLE


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, None),
        ({"regex": "a", "json_object": True}, None),
        ({"json_object": 1}, "json_object"),
        ({"regex": ""}, "regex"),
        ({"regex": 3}, "regex"),
        ({"regex": "a" * (MAX_CHARACTERS + 1)}, "regex"),
        ({"regex": "\ud800"}, "regex"),
        ({"grammar": b"x"}, "grammar"),
        ({"choice": "abc"}, "choice"),
        ({"choice": ["a", ""]}, "choice"),
        ({"choice": ["a", 1]}, "choice"),
        ({"choice": ["a"] * (MAX_CHOICES + 1)}, "choice"),
        ({"choice": ["a" * 100_000, "b" * 100_000]}, "choice"),
        ({"json": "{"}, "json"),
        ({"json": '{"const": NaN}'}, "json"),
        ({"json": {"const": float("inf")}}, "json"),
        ({"json": {"const": 1e308 * 10}}, "json"),
        ({"json": "[1]"}, "json"),
        ({"json": 5}, "json"),
        ({"json": {"const": object()}}, "json"),
        ({"json": {"const": "\ud800"}}, "json"),
        ({"json": nested(MAX_DEPTH)}, "json"),
        ({"json": CYCLE}, "json"),
        ({"json": "[" * 100_000}, "json"),
        ({"json": {"enum": list(range(30_000))}}, "json"),
        ({"json": {"const": "9" * (MAX_CHARACTERS)}}, "json"),
    ],
)
def test_what_is_refused_names_its_field(given: dict[str, Any], field: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        StructuredOutputs(**given)
    assert caught.value.field == field
    assert len(str(caught.value)) < 600


def test_a_deep_but_allowed_schema_is_taken() -> None:
    assert StructuredOutputs(json=nested(MAX_DEPTH - 2)).json


def test_sampling_params_take_nothing_else_for_it() -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(structured_outputs={"regex": "a"})  # type: ignore[arg-type]
    assert caught.value.field == "structured_outputs"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(schema=st.dictionaries(st.text(), JSON, max_size=5))
def test_any_mapping_is_taken_or_refused(schema: Mapping[str, object]) -> None:
    field: str | None = None
    try:
        kept = StructuredOutputs(json=schema)
    except RequestError as error:
        field = error.field
    else:
        assert isinstance(kept.json, str)
        assert StructuredOutputs(json=kept.json) == kept
    assert field in (None, "json")
