"""What a socket may cost: how many, how slowly a client may send or read, how much waits to be sent."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .failures import error_body

LARGEST_HEADERS = 64 << 10
SEND_BUFFER = 64 << 10
"""Asked of the kernel, which takes twice that for its own account (socket(7))."""
WRITE_BUFFER = 32 << 10
"""Bytes that wait in this process before a stream waits for its reader; a frame is about 200."""
_PASSED_OVER = 64 << 10
_LINGER_SECONDS = 2.0
_SPARE_FILES = 64
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds of one server's connections; times in seconds.

    most: open at once. header_seconds: for the whole header of a request. body_seconds: for its body, and
    one more for each `body_rate` bytes of it (the idea is Apache's mod_reqtimeout). stall_seconds: how
    long what waits to be sent may wait without any of it going out.
    """

    most: int
    header_seconds: float
    body_seconds: float
    stall_seconds: float
    body_rate: int = 16 << 10

    @property
    def sweep_seconds(self) -> float:
        """How often connections are looked at; what is late is closed so much later at most."""
        return min(1.0, self.header_seconds / 4, self.body_seconds / 4, self.stall_seconds / 4)


class Phase(Enum):
    """What a connection waits for."""

    IDLE = "the next request"
    HEADER = "the rest of a header"
    BODY = "the rest of a body"
    BUSY = "the application"
    LINGER = "the client, to notice an answer given before its body was read"


class OpenConnections(ServerState):
    """The connections of one server. `closed` is called with the reason for each that had to go, `count`
    with their number, now and then."""

    def __init__(
        self, limits: ConnectionLimits, closed: Callable[[str], None], count: Callable[[int], None]
    ) -> None:
        super().__init__()
        self.limits = limits
        self.closed = closed
        self._count = count
        # A dict for its order: who has been without a request for longest goes first when it gets full.
        self.spare: dict[Connection, None] = {}

    def make_room(self) -> bool:
        """Close the longest idle connection if all are taken; False if none is idle."""
        if len(self.connections) < self.limits.most:
            return True
        if not self.spare:
            return False
        next(iter(self.spare)).drop("full")
        return True

    async def watch(self) -> None:
        """Close what is late, for as long as the server runs."""
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            now = monotonic()
            self._count(len(self.connections))
            for connection in list(self.connections):
                if isinstance(connection, Connection):
                    connection.look(now)


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection with time limits on every phase and bounded buffers."""

    server_state: OpenConnections

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: OpenConnections,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.app = self._answering
        self._serve: ASGIApp = config.loaded_app
        self._limits = server_state.limits
        self._phase = Phase.HEADER
        self._deadline: float | None = None
        self._unsent = 0
        self._moved = monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        has_room = self.server_state.make_room()
        super().connection_made(transport)
        self._enter(Phase.HEADER)
        if not has_room:
            return self.drop("full")
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        wire = transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server_state.spare.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.LINGER:
            return
        if self._phase is Phase.IDLE:
            self._enter(Phase.HEADER)
        elif self._phase is Phase.BODY and self._deadline is not None:
            self._deadline += len(data) / self._limits.body_rate
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._enter(Phase.BODY)
        elif state is not h11.IDLE:
            self._enter(Phase.BUSY)
        elif self._phase is not Phase.HEADER:
            self._enter(Phase.IDLE)

    async def _answering(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app; an answer given before its request's body was read says that it is the connection's last.

        Without being told, a client that keeps connections sends its next request into a closed one.
        """
        is_last = False

        async def telling(message: Message) -> None:
            nonlocal is_last
            if message["type"] == "http.response.start" and self._body_is_missing():
                await self._pass_over(scope, receive)
                is_last = self._body_is_missing()
                if is_last:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            elif is_last and not message.get("more_body", False):
                # Closed now it would be reset, and the client might never see what the answer was.
                await send({**message, "more_body": True})
                self._linger()
                while (await receive())["type"] != "http.disconnect":
                    pass
                return
            await send(message)

        await self._serve(scope, receive, telling)

    def _body_is_missing(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing()

    async def _pass_over(self, scope: Scope, receive: Receive) -> None:
        """Read a short body that nobody wants, so that the connection can be used again."""
        if self.cycle.waiting_for_100_continue:
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and len(length) < 10 and int(length) <= _PASSED_OVER:
            while (await receive()).get("more_body", False):
                pass

    def send_400_response(self, msg: str) -> None:
        is_large = len(self.conn.trailing_data[0]) >= LARGEST_HEADERS
        status = 431 if is_large else 400
        reason = f"a header has at most {LARGEST_HEADERS} bytes" if is_large else "this is not HTTP"
        body = json.dumps(error_body(status, reason)).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        response = h11.Response(status_code=status, headers=[*headers, ("Connection", "close")])
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self._linger()

    def _linger(self) -> None:
        """Nothing more is said, what still comes is not heard; the sweep closes the connection."""
        self._enter(Phase.LINGER)
        self.transport.write_eof()

    def look(self, now: float) -> None:
        """Drop the connection if it is late at `now`."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._moved = now
        self._unsent = unsent
        if unsent and now - self._moved > self._limits.stall_seconds:
            self.drop("stalled")
        elif self._deadline is not None and now > self._deadline:
            self.drop("slow_body" if self._phase is Phase.BODY else "slow_header")

    def drop(self, reason: str) -> None:
        """End the connection at once and forget what it has not read."""
        if self._phase is not Phase.LINGER:
            self.server_state.closed(reason)
        self.server_state.spare.pop(self, None)
        wire = self.transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _enter(self, phase: Phase) -> None:
        if phase is self._phase and self._deadline is not None:
            return
        self._phase = phase
        seconds = {
            Phase.HEADER: self._limits.header_seconds,
            Phase.BODY: self._limits.body_seconds,
            Phase.LINGER: _LINGER_SECONDS,
        }.get(phase)
        self._deadline = None if seconds is None else monotonic() + seconds
        if phase in (Phase.IDLE, Phase.HEADER):
            self.server_state.spare[self] = None
        else:
            self.server_state.spare.pop(self, None)


def allow_files(most: int) -> int:
    """Let this process open `most` sockets and some files; how many sockets that comes to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, soft - _SPARE_FILES))
