"""What every request meets before a route does: its id, the API key, the size of its body."""

from __future__ import annotations

import hmac
import re
import secrets

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import error_response

OPEN_PATHS = frozenset({"/health"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")


class RequestId:
    """Gives each request an id, the client's X-Request-Id where that is a plain word, and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _REQUEST_ID.match(given) else secrets.token_hex(12)
        scope["pelton.request_id"] = name

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = name
            await send(message)

        await self._app(scope, receive, named)


class ApiKey:
    """Refuses every path but /health without `Authorization: Bearer KEY`; so new routes are closed too."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            given = Headers(scope=scope).get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self._expected):
                refusal = error_response(
                    401, "the API key is missing or wrong", "invalid_api_key", {"WWW-Authenticate": "Bearer"}
                )
                return await refusal(scope, receive, send)
        await self._app(scope, receive, send)


class BodyLimit:
    """413 for a body beyond `most` bytes: before reading where its length is told, else on the way."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._most:
            return await error_response(413, self._message())(scope, receive, send)
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413, self._message())
            return message

        await self._app(scope, bounded, send)

    def _message(self) -> str:
        return f"a body has at most {self._most} bytes"
