"""Bodies too large, too deep or too odd are refused before they cost anything, and the next one is served."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ..serving import Served, serving

JSON = {"Content-Type": "application/json"}
MOST = 8 << 20
DEEP = 100_000
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
)


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path) as served:
        yield served


@pytest.fixture(autouse=True)
def _a_good_request_says_what_it_said(served: Served) -> Iterator[None]:
    ask = {"prompt": "hello world", "max_tokens": 4, "seed": 1}
    before = served.http.post("/v1/completions", json=ask).json()["choices"]
    yield
    assert served.http.post("/v1/completions", json=ask).json()["choices"] == before


def raw(served: Served, request: bytes, body: Iterator[bytes]) -> bytes:
    """The first bytes of the answer to a hand-made request; `body` is sent until the server has enough."""
    host, _, port = urlsplit(served.url).netloc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        sent = 0
        try:
            connection.sendall(request)
            for part in body:
                connection.sendall(part)
                sent += len(part)
                assert sent < 4 * MOST, "the server takes whatever comes"
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            return connection.recv(1 << 16)
        except ConnectionResetError:
            return b""


def head(path: str, *lines: str) -> bytes:
    rest = "".join(f"{line}\r\n" for line in ("Content-Type: application/json", *lines))
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{rest}\r\n".encode()


@pytest.mark.parametrize("path", PATHS)
def test_a_body_of_known_length_beyond_the_limit_is_not_read(served: Served, path: str) -> None:
    reply = raw(served, head(path, f"Content-Length: {MOST + 1}"), iter(()))
    assert reply.startswith(b"HTTP/1.1 413 ")


def test_a_body_in_chunks_is_read_no_further_than_the_limit(served: Served) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    chunks = (chunk for _ in range(3 * MOST // 65536))
    reply = raw(served, head("/v1/completions", "Transfer-Encoding: chunked"), chunks)
    assert reply.startswith(b"HTTP/1.1 413 ") or reply == b""  # told, or cut off while it still sent


def test_a_body_of_no_length_is_no_body(served: Served) -> None:
    assert raw(served, head("/v1/completions"), iter(())).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'{"messages":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"prompt":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"input":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
        b'{"tools":[{"function":{"parameters":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}}]}",
        b'{"prompt": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"\x00",
        b'{"a": 1}{"a": 2}',
    ],
    ids=range(12),
)
def test_what_is_too_deep_or_no_json_is_a_400(served: Served, path: str, body: bytes) -> None:
    reply = served.http.post(path, content=body, headers=JSON)
    assert reply.status_code == 400
    assert len(reply.content) < 2000


def test_what_is_no_json_is_told_where(served: Served) -> None:
    reply = served.http.post("/v1/completions", content=b'{"prompt": "hi",}', headers=JSON)
    assert reply.status_code == 400
    message = reply.json()["error"]["message"]
    assert message == "the body is not valid JSON: trailing comma at line 1 column 17"


@pytest.mark.parametrize("part", ["[]", "{}", '""', '{"a":1}'])
def test_a_body_of_too_many_parts_is_not_parsed(served: Served, part: str) -> None:
    """What it costs to read counts, besides its bytes; texts have no parts, whatever is in them."""
    count = 1_000_000 if part != '""' else 2_000_000
    content = '{"prompt": [' + ",".join([part] * count) + "]}"
    assert len(content) < MOST
    reply = served.http.post("/v1/completions", content=content, headers=JSON)
    error = reply.json()["error"]["message"]
    assert (reply.status_code, "262144 lists" in error) == ((400, False) if part == '""' else (413, True))


def test_headers_of_a_mebibyte_are_a_431(served: Served) -> None:
    for lines in (f"X-Long: {'a' * (1 << 20)}", "\r\n".join(f"X-{n}: {'a' * 1000}" for n in range(1024))):
        reply = raw(served, f"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n\r\n".encode(), iter(()))
        assert reply.startswith(b"HTTP/1.1 431 ") or reply == b""  # told, or cut off while it still sent


def test_a_compressed_bomb_is_not_opened(served: Served) -> None:
    bomb = gzip.compress(json.dumps({"prompt": "a" * (64 << 20)}).encode())
    assert len(bomb) < 1 << 20
    for coding in ("gzip", "deflate", "br", "zstd", "identity, gzip"):
        reply = served.http.post(
            "/v1/completions", content=bomb, headers={**JSON, "Content-Encoding": coding}
        )
        assert reply.status_code == 415


def test_many_prompts_tokens_and_biases_are_bounded(served: Served) -> None:
    hostile = {
        "prompt": [[1]] * 200_000,
        "logit_bias": {str(n): 1 for n in range(200_000)},
        "stop": ["a"] * 300_000,
        "allowed_token_ids": list(range(10**6)),
        "bad_words": ["a"] * 300_000,
        "cache_salt": "a" * 10**6,
        "program": "a" * 10**6,
        "request_id": "a" * 10**6,
    }
    for name, value in hostile.items():
        reply = served.http.post("/v1/completions", json={"prompt": "hello", name: value})
        assert (reply.status_code, len(reply.content) < 2000) == (400, True), name
        assert name in reply.json()["error"]["message"]


def test_an_answer_before_the_body_was_read_is_told_as_the_last(served: Served) -> None:
    """A client that keeps connections would otherwise send its next request into a closed one."""
    request = head("/v1/completions", "Content-Encoding: gzip", f"Content-Length: {1 << 20}")
    long = raw(served, request, iter(()))
    assert long.startswith(b"HTTP/1.1 415 ")
    assert b"\r\nconnection: close\r\n" in long.lower()


def test_a_short_body_nobody_wants_leaves_the_connection_as_it_was(served: Served) -> None:
    host, _, port = urlsplit(served.url).netloc.rpartition(":")
    client = http.client.HTTPConnection(host, int(port), timeout=20)
    for _ in range(20):  # http.client sends the header and the body in two pieces
        client.request("POST", "/v1/completions", b"ab", {"Content-Encoding": "gzip"})
        socket_before = client.sock
        reply = client.getresponse()
        assert (reply.status, reply.getheader("connection")) == (415, None)
        reply.read()
        assert client.sock is socket_before is not None
    client.close()
