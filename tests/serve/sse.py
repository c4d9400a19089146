"""The least client that can stream: one connection a request, so that hundreds cost little."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

DONE = "[DONE]"


@dataclass(frozen=True)
class Reply:
    """A status and the data of the events that came, or of the whole body."""

    status: int
    events: list[str]

    @property
    def text(self) -> str:
        """The text of a completion's stream."""
        assert self.events[-1] == DONE, self.events[-3:]
        return "".join(json.loads(event)["choices"][0]["text"] for event in self.events[:-1])

    @property
    def is_told(self) -> bool:
        """Whether it ended as every stream must: with a finish reason or an error, then DONE."""
        if self.status != 200:
            return "error" in self.events[0]
        if len(self.events) < 2 or self.events[-1] != DONE:
            return False
        last = json.loads(self.events[-2])
        return "error" in last or last["choices"][0]["finish_reason"] is not None


class Connection:
    """A request under way; leaving the block closes its socket, whatever has come."""

    def __init__(self, url: str, body: Mapping[str, Any]) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port
        payload = json.dumps({**body, "stream": True}).encode()
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        self.request = head.encode() + payload

    async def __aenter__(self) -> Connection:
        self.reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()

    async def send(self, data: bytes | None = None) -> None:
        self._writer.write(self.request if data is None else data)
        await self._writer.drain()

    async def status(self) -> int:
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.head = head.decode()
        return int(head.split(b" ", 2)[1])

    async def events(self, most: int | None = None) -> list[str]:
        """The data of all events to the end of the connection, or of the first ones."""
        found: list[str] = []
        while most is None or len(found) < most:
            line = await self.reader.readline()
            if not line:
                break
            if line.startswith(b"data: "):
                found.append(line[6:].decode().rstrip("\n"))
            elif line.startswith(b"{"):
                found.append(line.decode())
        return found


async def ask(url: str, body: Mapping[str, Any]) -> Reply:
    """A whole stream."""
    async with Connection(url, body) as connection:
        await connection.send()
        return Reply(await connection.status(), await connection.events())
