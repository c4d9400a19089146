"""Clients that read slowly, send slowly, or not at all (reliability.md 4 and 5)."""

from __future__ import annotations

import fcntl
import re
import socket
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from pelton.serve.http.connections import Connection

from ..dribble import HEAD, is_closed, many, post, send_byte
from ..serving import PATIENCE, Served, serving

MOST_BUFFERED = 256 << 10
SLOW = {"prompt": "a", "max_tokens": 1000, "ignore_eos": True, "stream": True, "n": 4}
_PAUSE = 0.02


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path, client_stall_seconds=0.5, header_seconds=0.4, body_seconds=0.4) as served:
        yield served


def connections(served: Served) -> list[Connection]:
    return [each for each in list(served.server.open.connections) if isinstance(each, Connection)]


def buffered(connection: Connection) -> int:
    """Bytes on their way to a client, in this process and the kernel."""
    wire = connection.transport.get_extra_info("socket")
    (queued,) = struct.unpack("i", fcntl.ioctl(wire.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    return connection.transport.get_write_buffer_size() + int(queued)


def closed_for(served: Served, reason: str) -> float:
    name = f'pelton:connections_closed_total{{model_name="smol",reason="{reason}"}} '
    lines = served.service.metrics.text().decode().splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)


def until_closed(clients: list[socket.socket], act: Callable[[socket.socket], None]) -> list[float]:
    """Let each client that is still connected act again and again; seconds after which each was closed."""
    began, pause = monotonic(), threading.Event()
    open_, ends = set(clients), []
    while open_ and monotonic() - began < PATIENCE:
        for client in list(open_):
            if is_closed(client):
                open_.discard(client)
                ends.append(monotonic() - began)
            else:
                act(client)
        pause.wait(_PAUSE)
    assert not open_
    return ends


def sit_still(client: socket.socket) -> None:
    """Send nothing."""


def test_slow_readers_are_bounded_then_cut_off_and_their_blocks_freed(served: Served) -> None:
    before = closed_for(served, "stalled")
    with many(8, served.url, receive_buffer=4096) as clients:
        for client in clients:
            post(client, SLOW)
        largest = 0

        def look(client: socket.socket) -> None:
            nonlocal largest
            largest = max(largest, *(buffered(each) for each in connections(served)), 0)

        until_closed(clients, look)
    assert 0 < largest <= MOST_BUFFERED
    assert closed_for(served, "stalled") == before + 8
    free, total = served.free_blocks()
    assert free == total
    assert served.until(lambda: not connections(served))


def test_an_answer_that_nobody_fetches_does_not_keep_its_socket(served: Served) -> None:
    """The request has ended, its end is still in the buffers: those have a time limit of their own."""
    before = closed_for(served, "stalled")
    body = {"prompt": [5] * 1000, "max_tokens": 1, "prompt_logprobs": 20}
    with many(1, served.url, receive_buffer=4096) as clients:
        post(clients[0], body)
        until_closed(clients, sit_still)
    assert closed_for(served, "stalled") == before + 1


def all_of(client: socket.socket) -> bytes:
    client.setblocking(True)
    client.settimeout(PATIENCE)
    with client.makefile("rb") as file:
        reply = b"".join(iter(file.readline, b"\r\n"))
        length = re.search(rb"content-length: (\d+)", reply)
        if length is not None:
            return file.read(int(length[1]))
        return b"".join(iter(file.readline, b"0\r\n"))


@pytest.mark.parametrize("prompts", [1, 4])
def test_what_waits_for_a_reader_is_bounded_by_its_bytes(tiny_path: Path, prompts: int) -> None:
    """Log probabilities are many times as large as the text: who asks for them must read them."""
    body = {"prompt": ["a"] * prompts, "max_tokens": 1000 // prompts, "ignore_eos": True, "stream": True}
    with serving(tiny_path) as served, many(2, served.url, receive_buffer=4096) as (plain, full):
        post(plain, body)
        post(full, {**body, "logprobs": 20, "n": 4})
        assert served.until(lambda: served.engine.load().running > 0)
        assert served.until(lambda: served.engine.load().running == 0)  # nobody has read anything
        free, total = served.engine.load().kv_free, served.engine.load().kv_blocks
        assert free == total
        text, logprobs = all_of(plain), all_of(full)
        assert text.count(b'"finish_reason":"length"') == prompts
        assert b"waited for a slow reader" not in text
        assert b"waited for a slow reader" in logprobs[-1000:]
        assert b'"type": "timeout_error"' in logprobs[-1000:]
        assert logprobs.endswith(b"data: [DONE]\n\n\r\n")
        assert served.free_blocks()[0] == total


def test_an_answer_that_fills_its_buffers_at_once_has_its_time_too(tiny_path: Path) -> None:
    """What waits when a connection is first looked at has not waited since the machine was started."""
    body = {"prompt": [5] * 1000, "max_tokens": 1, "prompt_logprobs": 20}
    with serving(tiny_path) as served, many(4, served.url, receive_buffer=4096) as clients:
        for client in clients:
            post(client, body)
        assert served.until(lambda: len(unsent(served)) == 4)
        for each in unsent(served):
            served.loop.call_soon_threadsafe(each.look, monotonic())
        assert all(all_of(client).endswith(b"}") for client in clients)


def unsent(served: Served) -> list[Connection]:
    return [each for each in connections(served) if each.transport.get_write_buffer_size()]


def test_a_slow_but_steady_reader_gets_everything(served: Served) -> None:
    body = {"prompt": [5] * 1000, "max_tokens": 1, "prompt_logprobs": 20}
    whole = served.http.post("/v1/completions", json=body).content
    with many(1, served.url, receive_buffer=16 << 10) as (client,):
        post(client, body)
        client.setblocking(True)
        client.settimeout(PATIENCE)
        pause, began, parts = threading.Event(), monotonic(), list[bytes]()
        while not parts or not parts[-1].endswith(whole[-3:]):
            parts.append(client.recv(16 << 10))
            pause.wait(0.03)
        assert len(b"".join(parts).partition(b"\r\n\r\n")[2]) >= len(whole) - 64
    assert monotonic() - began > 0.5  # longer than a stalled one may stay


BEGINNINGS = {"nothing": b"", "header": HEAD[:40], "body": HEAD + b"Content-Length: 5000\r\n\r\n{"}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_dribblers_are_cut_off(served: Served, beginning: str) -> None:
    reason = "slow_body" if beginning == "body" else "slow_header"
    before = closed_for(served, reason)
    with many(40, served.url) as clients:
        for client in clients:
            client.sendall(BEGINNINGS[beginning])
        until_closed(clients, sit_still if beginning == "nothing" else send_byte)
    assert closed_for(served, reason) == before + 40
    assert served.http.get("/health").status_code == 200


def test_a_body_at_a_fair_rate_may_take_its_time(served: Served) -> None:
    """0.4 s and one more for each 16 KiB: 48 KiB in 1 s are fast enough."""
    raw = b'{"prompt": "a", "max_tokens": 1' + b" " * (48 << 10) + b"}"
    with many(1, served.url) as (client,):
        client.sendall(HEAD + f"Content-Length: {len(raw)}\r\n\r\n".encode())
        client.setblocking(True)
        pause = threading.Event()
        for at in range(0, len(raw), len(raw) // 10):
            client.sendall(raw[at : at + len(raw) // 10])
            pause.wait(0.1)
        client.settimeout(PATIENCE)
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_a_second_request_on_a_connection_has_its_own_time(served: Served) -> None:
    with many(1, served.url) as (client,):
        client.setblocking(True)
        client.settimeout(PATIENCE)
        pause = threading.Event()
        for _ in range(3):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            pause.wait(0.25)  # three of these are more than the 0.4 s for one header
        client.sendall(b"GET /hea")
        with pytest.raises(ConnectionResetError):
            client.recv(4096)


def test_a_full_server_closes_the_idle_for_the_new(tiny_path: Path) -> None:
    with serving(tiny_path, max_connections=16) as served:
        served.http.close()
        with many(16, served.url) as idle, many(4, served.url) as late:
            for client in late:
                client.setblocking(True)
                client.settimeout(PATIENCE)
                client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
            assert [is_closed(client) for client in idle].count(True) == 4
            assert is_closed(idle[0])
        assert closed_for(served, "full") == 4
