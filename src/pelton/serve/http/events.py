"""Answering for as long as the client listens: server-sent events, and work that ends when it leaves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..seeing.record import RequestRecord, record_of
from .failures import LateError, body_of, status_of

log = logging.getLogger("pelton.serve")
T = TypeVar("T")

DONE = b"data: [DONE]\n\n"


def event(chunk: BaseModel) -> bytes:
    """One server-sent event; JSON has no raw line ends, so it is always one line."""
    return b"data: " + chunk.model_dump_json(exclude_unset=True).encode() + b"\n\n"


def named_event(kind: str, data: Mapping[str, object]) -> bytes:
    """One server-sent event with its type both beside and in its data, as typed streams have it."""
    return f"event: {kind}\ndata: ".encode() + json.dumps({"type": kind, **data}).encode() + b"\n\n"


def error_event(error: Exception) -> bytes:
    return b"data: " + json.dumps(body_of(error)).encode() + b"\n\n"


@dataclass(frozen=True)
class Framing:
    """How the streams of one API end: what tells of a failure, and what is always last."""

    failure: Callable[[Exception], bytes]
    last: bytes


OPENAI = Framing(error_event, DONE)


async def with_pings(
    frames: AsyncGenerator[bytes, None], ping: bytes, seconds: float
) -> AsyncGenerator[bytes, None]:
    """The same frames, and `ping` after each stretch of `seconds` without one."""
    async with aclosing(frames):
        while True:
            following = asyncio.ensure_future(anext(frames, None))
            try:
                while not (await asyncio.wait({following}, timeout=seconds))[0]:
                    yield ping
                frame = following.result()
            finally:
                await _end(following)
            if frame is None:
                return
            yield frame


async def in_time(items: AsyncGenerator[T, None], record: RequestRecord) -> AsyncGenerator[T, None]:
    """The same items, for what no connection awaits. Raises LateError once the request's time is up."""
    async with aclosing(items):
        while True:
            following = asyncio.ensure_future(anext(items))
            try:
                ended, _ = await asyncio.wait({following}, timeout=record.left)
                if not ended:
                    raise late(record)
                item = following.result()
            except StopAsyncIteration:
                return
            finally:
                await _end(following)
            yield item


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; it is cancelled, and ClientDisconnect raised, when the client leaves first,
    LateError when the request's time is up."""
    record = record_of(request.scope)
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, timeout=record.left, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise late(record)
    finally:
        await _end(task, gone)


class EventStream(Response):
    """Sends the frames of a generator that gave its first one already, then the framing's last.

    An exception in the middle, or the end of the request's time, becomes an error event. The generator is
    closed when the client leaves; the connection sees to it that one who reads nothing has left.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, frames: AsyncGenerator[bytes, None], framing: Framing = OPENAI) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._frames = frames
        self._framing = framing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        async with aclosing(self._frames):
            task = asyncio.ensure_future(self._write(send))
            gone = asyncio.ensure_future(_until_gone(receive))
            try:
                ended, _ = await asyncio.wait(
                    {task, gone}, timeout=record.left, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                await _end(task, gone)
        if not ended:
            await self._finish(send, late(record))

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await _send(send, self._first)
        try:
            async for frame in self._frames:
                await _send(send, frame)
        except OSError:
            return  # the client left
        except Exception as error:  # the status is sent already: an event must tell
            if status_of(error) == 500:
                log.error("a stream failed: %s", type(error).__name__, exc_info=error)
            return await self._finish(send, error)
        await self._finish(send)

    async def _finish(self, send: Send, error: Exception | None = None) -> None:
        if error is not None:
            await _send(send, self._framing.failure(error))
        if self._framing.last:
            await _send(send, self._framing.last)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def late(record: RequestRecord) -> LateError:
    return LateError(f"the request has taken {record.seconds:.1f} s, which is all it gets")


async def _send(send: Send, frame: bytes) -> None:
    await send({"type": "http.response.body", "body": frame, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait until it has ended, so that nothing is held after this."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would complain about one that nobody reads
