"""Nobody gets in without a key: every route of the application, by every odd way to write or ask for it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi.routing import APIRoute

from pelton.serve.app import make_app
from pelton.serve.http.guard import OPEN_PATHS

from ..serving import Served, serving

KEY = "sk-of-nobody-else"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE")
DISGUISES = (
    {"X-HTTP-Method-Override": "GET"},
    {"X-Original-URL": "/health", "X-Rewrite-URL": "/health", "X-Forwarded-Prefix": "/health"},
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": f"Bearer {KEY[:-1]}"},
    {"Authorization": f"Bearer {KEY}x"},
    {"Authorization": f"Basic {KEY}"},
    {"Authorization": "Bearer \xff"},
    {"x-api-key": KEY.upper()},
    {"x-api-key": "", "Authorization": "Bearer "},
    {"Cookie": f"key={KEY}"},
)


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path, api_key=KEY) as served:
        yield served


@pytest.fixture
def connection(served: Served) -> Iterator[http.client.HTTPConnection]:
    """Unlike httpx it sends a path as it is."""
    opened = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=20)
    yield opened
    opened.close()


def status(connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str]) -> int:
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    body = reply.read()
    assert KEY.encode() not in body
    return reply.status


def paths(served: Served) -> list[str]:
    routes = [route for route in make_app(served.service).routes if isinstance(route, APIRoute)]
    found = {route.path.replace("{response_id}", "resp_x").replace("{name:path}", "m") for route in routes}
    assert {"/v1/responses/resp_x/cancel", "/v1/messages", "/v1/embeddings", "/metrics"} <= found
    return sorted(found | {"/openapi.json", "/", "/docs", "/nowhere"})


def odd_ways(path: str) -> list[str]:
    ways = [
        path,
        "/" + path,
        path + "/",
        path + "?x=1",
        path.upper(),
        path + ";a=b",
        path + "%00",
        path + "%20",
    ]
    ways += ["/." + path, "/%2e" + path, "/health/.." + path, "/health/%2e%2e" + path, "/health%2f.." + path]
    ways += [path.replace("/", "%2f", 1), path.replace("/", "\\", 1), path[:2] + "/" + path[2:]]
    return [way if way.startswith("/") else "/" + way for way in ways]


def test_every_route_in_every_spelling_is_closed(
    served: Served, connection: http.client.HTTPConnection
) -> None:
    for path in paths(served):
        for way in odd_ways(path):
            if way.partition("?")[0] in OPEN_PATHS:
                continue
            assert status(connection, "GET", way, {}) == 401, way
            assert status(connection, "POST", way, {"Content-Type": "application/json"}) == 401, way


def test_no_method_and_no_header_opens_a_route(
    served: Served, connection: http.client.HTTPConnection
) -> None:
    for path in paths(served):
        if path in OPEN_PATHS:
            continue
        for method in METHODS:
            assert status(connection, method, path, {}) == 401, (method, path)
        for headers in DISGUISES:
            assert status(connection, "GET", path, headers) == 401, (headers, path)


def test_the_key_opens_and_health_is_open(served: Served, connection: http.client.HTTPConnection) -> None:
    assert status(connection, "GET", "/health", {}) == 200
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        assert status(connection, "GET", "/v1/models", headers) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::2]"]
)
def test_other_names_of_the_server_are_refused(connection: http.client.HTTPConnection, host: str) -> None:
    for path in ("/health", "/v1/models"):
        assert status(connection, "GET", path, {"Host": host, "x-api-key": KEY}) == 400


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://[", "file://", ""]
)
def test_pages_of_other_sites_are_refused(connection: http.client.HTTPConnection, origin: str) -> None:
    for path in ("/health", "/v1/models", "/v1/messages"):
        assert status(connection, "GET", path, {"Origin": origin, "x-api-key": KEY}) == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "http://localhost:3000", "http://[::1]:80"])
def test_pages_of_this_machine_may_ask(connection: http.client.HTTPConnection, origin: str) -> None:
    assert status(connection, "GET", "/v1/models", {"Origin": origin, "x-api-key": KEY}) == 200


def test_the_document_says_that_a_key_is_asked_for(served: Served) -> None:
    document = json.loads(served.http.get("/openapi.json", headers={"x-api-key": KEY}).content)
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    assert document["security"] == [{"bearer": []}, {"key": []}]
    assert document["paths"]["/health"]["get"]["security"] == []
