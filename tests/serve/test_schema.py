"""The OpenAPI document is true: what it allows comes back as it says, what it forbids is a 400 by name."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import one_of
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from .serving import Served, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
BASES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "hello", "max_tokens": 1},
    "/v1/embeddings": {"input": "hello"},
    "/v1/responses": {"input": "hello", "max_output_tokens": 1},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hello"}]},
    "/tokenize": {"prompt": "hello"},
    "/detokenize": {"tokens": [70]},
}
VALUES: dict[str, list[Any]] = {
    "null": [None],
    "boolean": [True],
    "integer": [7],
    "number": [1.5],
    "string": ["x"],
    "array": [[], [None]],
    "object": [{}, {"a": None}],
}


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path) as served:
        yield served


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = served.http.get("/openapi.json").json()
    return found


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def types_of(document: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """JSON types that a schema allows at its top."""
    schema = resolved(document, schema)
    parts = [part for key in ("anyOf", "oneOf") for part in schema.get(key, ())]
    if parts:
        return set().union(*(types_of(document, part) for part in parts))
    if "const" in schema or "enum" in schema:
        return set()  # none of the values tried here is one of them
    allowed = {schema["type"]} if "type" in schema else set(VALUES)
    return allowed | {"integer"} if "number" in allowed else allowed


def wrong_values(document: dict[str, Any], path: str) -> list[tuple[str, Any]]:
    """Each field with values of every type that its schema does not allow, and one beyond each limit."""
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    found: list[tuple[str, Any]] = [("no_such_field", 1)]
    for name, schema in resolved(document, body)["properties"].items():
        for kind in set(VALUES) - types_of(document, schema):
            found += [(name, value) for value in VALUES[kind]]
        for part in (schema, *schema.get("anyOf", ())):
            if "maximum" in part:
                found += [(name, part["maximum"] + 1), (name, 2**63), (name, 10**300)]
            if "minimum" in part:
                found += [(name, part["minimum"] - 1), (name, -(2**64))]
            if "exclusiveMinimum" in part:
                found += [(name, part["exclusiveMinimum"]), (name, -1)]
            if part.get("type") in ("number", "integer"):
                found += [(name, float("nan")), (name, float("inf")), (name, "1")]
    return found


def test_the_document_covers_every_route_but_itself(served: Served, document: dict[str, Any]) -> None:
    posts = {path for path, item in document["paths"].items() if "post" in item and "{" not in path}
    assert posts == set(BASES)
    for item in document["paths"].values():
        for operation in item.values():
            assert "422" not in operation["responses"]
            assert {"200", "400", "401", "500"} <= set(operation["responses"])


def test_no_schema_is_named_after_its_module(document: dict[str, Any]) -> None:
    """Generated clients take these names; two classes of one name would have their modules' in them."""
    names = set(document["components"]["schemas"])
    assert {"ErrorReply", "MessageError", "ChatRequest", "MessagesRequest"} <= names
    assert [name for name in names if not re.fullmatch(r"[A-Z][A-Za-z]*", name)] == []


@pytest.mark.parametrize("path", BASES)
def test_every_value_that_the_document_forbids_is_refused_by_name(
    served: Served, document: dict[str, Any], path: str
) -> None:
    base = BASES[path]
    assert served.http.post(path, json=base).status_code == 200
    wrong = wrong_values(document, path)
    for name, value in wrong:
        content = json.dumps({**base, name: value})
        reply = served.http.post(path, content=content, headers={"Content-Type": "application/json"})
        expected = 404 if (name, value) == ("model", "x") else 400
        assert reply.status_code == expected, (name, value, reply.text)
        message = reply.json()["error"]["message"]
        assert name in message or expected == 404, (name, value, message)
        assert len(reply.content) < 2000


def test_there_are_enough_wrong_values(document: dict[str, Any]) -> None:
    assert sum(len(wrong_values(document, path)) for path in BASES) >= 400


def operations_of(served: Served, document: dict[str, Any]) -> list[Any]:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=served.url)
    results: list[Any] = list(schema.get_all_operations())
    return [result.ok() for result in results]


def check_generated(operation: Any, session: requests.Session, examples: int) -> list[tuple[str, Any]]:
    """Requests to one operation, half as the document allows and half as it does not; their fields."""
    modes = [GenerationMode.POSITIVE]
    if operation.body or operation.path_parameters:
        modes.append(GenerationMode.NEGATIVE)
    fields: list[tuple[str, Any]] = []

    @settings(
        max_examples=examples, database=None, derandomize=True, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )  # fmt: skip
    @given(case=one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)))
    def check(case: Any) -> None:
        if isinstance(case.body, dict):
            fields.extend(case.body.items())
        case.call_and_validate(session=session, checks=[*CHECKS, negative_data_rejection])

    check()
    return fields


def check_mixed(
    operation: Any, session: requests.Session, fields: list[tuple[str, Any]], examples: int
) -> Counter[int]:
    """Good requests to one operation with one to three of `fields` put in: many of them are good still."""
    random, found = Random(operation.path), Counter[int]()
    for _ in range(examples):
        body = {
            **BASES[operation.path],
            **dict(random.sample(fields, min(len(fields), random.randint(1, 3)))),
        }
        case = operation.Case(body=body, media_type="application/json")
        found[case.call_and_validate(session=session, checks=CHECKS).status_code] += 1
    return found


def check_all(served: Served, document: dict[str, Any], generated: int, mixed: int) -> Counter[int]:
    """Statuses of the mixed requests. Afterwards nothing is left in the server."""
    found = Counter[int]()
    with requests.Session() as session:
        for operation in operations_of(served, document):
            fields = check_generated(operation, session, generated if operation.body else 4)
            if operation.body:
                found += check_mixed(operation, session, fields, mixed)
    free, total = served.free_blocks()
    assert free == total
    return found


def test_answers_are_as_the_document_says(served: Served, document: dict[str, Any]) -> None:
    found = check_all(served, document, generated=5, mixed=15)
    assert set(found) <= {200, 400, 404}
    assert found[200] >= 20


@pytest.mark.fuzz
def test_twenty_thousand_requests_never_break_the_server(served: Served, document: dict[str, Any]) -> None:
    found = check_all(served, document, generated=200, mixed=20_000 // len(BASES))
    assert set(found) <= {200, 400, 404}
    assert found.total() >= 20_000
    assert found[200] >= 2_000
