"""API keys, the bounded queue, and what else a request may not."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.types import Message, Scope

from pelton.errors import ConfigError
from pelton.serve.http.events import EventStream
from pelton.serve.http.keys import TenantKey, read_keys
from pelton.serve.seeing.record import RequestRecord, attach
from pelton.serve.settings import ServerSettings

from ..dribble import connected
from ..serving import NAME, PATIENCE, Served, serving

KEY = "sk-correct-horse"
LONG = {"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def served(real_model_path: Path) -> Iterator[Served]:
    with serving(real_model_path, max_num_seqs=2, max_queue=1, api_key=KEY) as served:
        served.http.headers["Authorization"] = f"Bearer {KEY}"
        yield served


def test_every_route_but_health_asks_for_the_key(served: Served) -> None:
    from pelton.serve.app import make_app

    paths = {getattr(route, "path", "") for route in make_app(served.service).routes}
    assert "/v1/chat/completions" in paths
    odd = {"//health", "/health/", "/Health", "/%2e/health", "/v1/../metrics", "/nowhere"}
    with httpx.Client(base_url=served.url) as stranger:
        for path in (paths | odd) - {"/health"}:
            for method in ("GET", "POST", "OPTIONS", "DELETE"):
                assert stranger.request(method, path).status_code == 401, (method, path)
        for wrong in ("", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer", f"Basic {KEY}"):
            refused = stranger.get("/v1/models", headers={"Authorization": wrong})
            assert refused.status_code == 401
            assert KEY not in refused.text
        for scheme in ("bearer", "BEARER"):  # RFC 9110 11.1: its case means nothing
            reply = stranger.get("/v1/models", headers={"Authorization": f"{scheme} {KEY}"})
            assert reply.status_code == 200
        assert stranger.get("/health").status_code == 200
    with served.openai(KEY) as client:
        assert client.models.list().data[0].id == NAME
    assert KEY not in repr(served.service.settings)


KEYS = (TenantKey("ann", "key-of-ann"), TenantKey("bob", "key-of-bob"))


def test_each_key_is_its_tenants_in_either_header(tiny_path: Path) -> None:
    seen: list[RequestRecord] = []
    with serving(tiny_path, api_key=KEY, tenant_keys=KEYS) as served:
        served.service.on_end.append(seen.append)
        for headers, tenant in (
            ({"Authorization": "Bearer key-of-ann"}, "ann"),
            ({"x-api-key": "key-of-bob"}, "bob"),
            ({"x-api-key": "key-of-bob", "Authorization": "Basic abc"}, "bob"),
            ({"Authorization": f"Bearer {KEY}"}, ""),
        ):
            body = {"prompt": "a", "max_tokens": 2}
            assert served.http.post("/v1/completions", json=body, headers=headers).status_code == 200
            assert served.until(lambda: bool(seen))
            assert seen.pop().tenant == tenant
        for wrong in ("Key-of-ann", "", "key-of-annkey-of-bob", "ann", "key-of-an"):
            assert served.http.get("/v1/models", headers={"x-api-key": wrong}).status_code == 401
    assert "key-of" not in repr(served.service.settings)


def test_one_tenant_cannot_fill_the_queue(tiny_path: Path) -> None:
    """Eight at once: four are anyone's, and two of the others are each one's own."""
    ann, bob = ({"x-api-key": key.key} for key in KEYS)
    with serving(tiny_path, max_num_seqs=4, max_queue=4, tenant_keys=KEYS) as served:

        async def storm() -> tuple[list[int], int]:
            async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as client:
                body = {**LONG, "max_tokens": 200, "stream": False}
                posts = [client.post("/v1/completions", json=body, headers=ann) for _ in range(12)]
                flood = [asyncio.create_task(post) for post in posts]
                while served.service.gate.under_way < 6:
                    await asyncio.sleep(0.001)
                one = await client.post("/v1/completions", json={**body, "max_tokens": 1}, headers=bob)
                return [reply.status_code for reply in await asyncio.gather(*flood)], one.status_code

        flood, one = asyncio.run(storm())
    assert one == 200
    assert flood.count(200) >= 6
    assert flood.count(429) >= 1
    assert set(flood) <= {200, 429}


def test_key_files_are_read_and_faults_named_without_the_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# who key\nann key-of-ann\n\n  bob   key-of-bob  \n")
    assert read_keys(path) == KEYS
    for text, where in (("ann secret extra\n", "line 1"), ("secret\n", "line 1"), ("", "1 to 1000 keys")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=where) as caught:
            read_keys(path)
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="nowhere"):
        read_keys(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="two tenants"):
        ServerSettings(served_model_name=NAME, tenant_keys=(KEYS[0], TenantKey("eve", "key-of-ann")))


def test_headers_beyond_their_limit_and_compressed_bodies_are_refused(served: Served) -> None:
    for number in (1, 20):
        headers = {f"x-long-{at}": "a" * (1 << 20) for at in range(number)}
        reply = served.http.get("/health", headers=headers)
        assert reply.status_code == 431
        assert reply.json()["error"]["type"] == "invalid_request_error"
    bomb = gzip.compress(b'{"prompt": "' + b"a" * (64 << 20) + b'"}')
    reply = served.http.post("/v1/completions", content=bomb, headers={"Content-Encoding": "gzip"})
    assert reply.status_code == 415
    with connected(served.url) as client:
        client.setblocking(True)
        client.sendall(b"this is no HTTP\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_a_body_of_two_lengths_is_refused_and_the_connection_closed(served: Served) -> None:
    """A proxy that reads the other one would take what follows for the next client's request."""
    body = b'{"prompt": "a", "max_tokens": 1}'
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    )
    with connected(served.url) as client:
        client.setblocking(True)
        client.settimeout(PATIENCE)
        client.sendall(head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        said = b"".join(iter(lambda: client.recv(4096), b""))
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1
    assert b"not in two ways" in said


def test_other_origins_may_ask_only_where_told(served: Served, tiny_path: Path) -> None:
    page = "http://page.example"
    asks = {"Origin": page, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in served.http.get("/health", headers=asks).headers
    assert served.http.options("/v1/completions", headers=asks).status_code == 403
    with serving(tiny_path, cors_origins=(page,), api_key=KEY) as open_one:
        preflight = open_one.http.options("/v1/completions", headers=asks)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == page
        stranger = {**asks, "Origin": "http://other.example"}
        assert open_one.http.options("/v1/completions", headers=stranger).status_code == 400
        refused = open_one.http.post("/v1/completions", headers={"Origin": page}, json={})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == page


def test_a_full_queue_is_a_429_that_says_when_to_come_again(served: Served) -> None:
    async def storm() -> list[httpx.Response]:
        async with (
            httpx.AsyncClient(base_url=served.url, headers=served.http.headers, timeout=PATIENCE) as client,
            client.stream("POST", "/v1/completions", json={**LONG, "n": 3}) as busy,
        ):
            lines = busy.aiter_lines()
            await anext(lines)
            return [await client.post("/v1/completions", json={"prompt": "x"}) for _ in range(3)]

    for reply in asyncio.run(storm()):
        assert reply.status_code == 429
        assert int(reply.headers["Retry-After"]) >= 1
        assert reply.json()["error"]["type"] == "rate_limit_error"
    free, total = served.free_blocks()
    assert free == total
    assert served.http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200


def test_a_reader_that_leaves_closes_its_stream() -> None:
    closed = []

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            closed.append(True)

    taken = asyncio.Event()

    async def leaves_after_three() -> Message:
        await taken.wait()
        return {"type": "http.disconnect"}

    sent = []

    async def takes_three(message: Message) -> None:
        sent.append(message)
        if len(sent) == 3:
            taken.set()
            await asyncio.Event().wait()

    async def answer() -> None:
        stream = frames()
        scope: Scope = {"type": "http"}
        attach(scope, RequestRecord("id", "POST", "/"))
        reply = EventStream(await anext(stream), stream)
        await asyncio.wait_for(reply(scope, leaves_after_three, takes_three), PATIENCE)

    asyncio.run(answer())
    assert closed == [True]
    assert len(sent) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_gets_no_more_time_than_there_is(tiny_path: Path, stream: bool) -> None:
    with serving(tiny_path, request_timeout=0.2) as served:
        reply = served.http.post("/v1/completions", json={**LONG, "n": 16, "stream": stream})
        if stream:
            *_, error, done = (line for line in reply.text.split("\n") if line)
            assert reply.status_code == 200
            assert done == "data: [DONE]"
        else:
            assert reply.status_code == 504
            error = reply.text
        assert json.loads(error.removeprefix("data: "))["error"]["type"] == "timeout_error"
        assert served.free_blocks()[0] == served.free_blocks()[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("port", 70000), ("api_key", ""), ("api_key", "grüße"), ("max_queue", -1)],
        ("served_model_name", ""),
        *[("allowed_hosts", (host,)) for host in ("a*b", "", "http://a.example", "a.example:80")],
    ],
)
def test_bad_settings_are_named(field: str, value: object) -> None:
    chosen: dict[str, object] = {"served_model_name": NAME, field: value}
    with pytest.raises(ConfigError, match=field):
        ServerSettings(**chosen)  # type: ignore[arg-type]  # that is the point
