"""Which hosts and origins are the server's own; every answer says the id of its request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pelton.serve.http.origin import is_one_of

from ..serving import Served, serving

HOSTS = ("a.example", "*.b.example", "[::1]", "::1")


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path, allowed_hosts=HOSTS, api_key="key") as served:
        yield served


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("a.example", 200), ("A.EXAMPLE:8000", 200), ("x.b.example", 200), ("x.y.b.example:1", 200),
        ("[::1]:80", 200), ("b.example", 400), ("xb.example", 400), ("a.example.evil", 400),
        ("evil@a.example", 400), ("a.example/x", 400), ("a.example:80:80", 400), ("[::1", 400), ("*", 400),
        ("127.0.0.1", 400),
    ],
)  # fmt: skip
def test_only_own_hosts_are_answered(served: Served, host: str, status: int) -> None:
    reply = served.http.get("/health", headers={"Host": host})
    assert reply.status_code == status
    assert "error" in reply.json() or status == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://a.example", 200), ("https://x.b.example:8", 200), ("http://[::1]:80", 200),
        ("http://b.example", 403), ("null", 403), ("http://[", 403), ("", 403),
    ],
)  # fmt: skip
def test_pages_of_own_hosts_may_ask(served: Served, origin: str, status: int) -> None:
    assert served.http.get("/health", headers={"Host": "a.example", "Origin": origin}).status_code == status


def test_any_name_is_one_of_a_star() -> None:
    assert is_one_of("x", ["*"])
    assert not is_one_of("x", [])


def test_every_answer_says_its_requests_id(served: Served) -> None:
    own, key = {"Host": "a.example"}, {"x-api-key": "key"}
    with httpx.Client(base_url=served.url, headers={"X-Request-Id": "mine"}) as client:
        replies = [
            client.get("/health", headers=own),
            client.get("/health", headers={"Host": "evil.example"}),
            client.get("/health", headers={**own, "Origin": "http://evil.example"}),
            client.get("/v1/models", headers=own),
            client.get("/nowhere", headers={**own, **key}),
            client.get("/v1/messages", headers={**own, **key}),
            client.post("/v1/messages", headers={**own, **key}, json={}),
            client.post("/v1/messages", headers={**own, **key}, content=b"x" * (9 << 20)),
            client.post("/v1/messages", headers={**own, **key, "Content-Encoding": "gzip"}, content=b"x"),
        ]
    assert [reply.status_code for reply in replies] == [200, 400, 403, 401, 404, 405, 400, 413, 415]
    for reply in replies:
        assert (reply.headers["request-id"], reply.headers["x-request-id"]) == ("mine", "mine")
