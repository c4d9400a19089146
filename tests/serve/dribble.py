"""Sockets that send or read almost nothing."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def connected(url: str, receive_buffer: int | None = None) -> socket.socket:
    """A socket to the server that never blocks."""
    parts = urlsplit(url)
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect((parts.hostname, parts.port))
    client.setblocking(False)
    return client


@contextmanager
def many(number: int, url: str, receive_buffer: int | None = None) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connected(url, receive_buffer)) for _ in range(number)]


def post(client: socket.socket, body: dict[str, object]) -> None:
    """Send a whole request."""
    raw = json.dumps(body).encode()
    client.sendall(HEAD + f"Content-Length: {len(raw)}\r\n\r\n".encode() + raw)


def is_closed(client: socket.socket, read: int = 1) -> bool:
    """Read at most so much; whether the server has ended the connection, be there more to read or not."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    if poll.poll(0):
        return True
    try:
        return client.recv(read) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def send_byte(client: socket.socket) -> None:
    """Send one byte more of whatever was begun."""
    with suppress(BlockingIOError, ConnectionError):
        client.send(b"x")
