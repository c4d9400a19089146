"""What every request meets before a route does: its id, the API key, the size of its body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Sequence

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..seeing.record import RequestRecord, attach, deadline, record_of
from .admission import Gate
from .failures import body_of, error_response
from .keys import TenantKey

log = logging.getLogger("pelton.serve")
CLIENT_LEFT = 499
"""nginx's number for a request whose client left before there was a status."""
_LONGEST_TRACE = 512
MOST_PARTS = 1 << 18
"""Those within texts count too, which cannot be told apart: 8 MB of program text have as many."""
_PART_MARKS = (b"[", b"{", b'":')
OPEN_PATHS = frozenset({"/health"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")


class Requests:
    """The outermost: begins each request's record and tells `ended` of it when all is sent.

    Its id is the client's X-Request-Id where that is a plain word. Every answer says it, refusals too: in the
    header that OpenAI's clients read and in the one that Anthropic's do.
    """

    def __init__(self, app: ASGIApp, seconds: float | None, ended: Callable[[RequestRecord], None]) -> None:
        self._app = app
        self._seconds = seconds
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        record = self._begin(scope)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = headers["Request-Id"] = record.id
            await send(message)

        try:
            await self._app(scope, receive, named)
        except Exception as error:  # the connection lives on: another request may be behind this one
            log.error("%s failed: %s", record.path, type(error).__name__, exc_info=error)
            if record.status:
                raise
            refusal = error_response(500, body_of(error)["error"]["message"], path=record.path)
            await refusal(scope, receive, named)
        finally:
            route = scope.get("route")
            record.route = route.path if isinstance(route, Route) else ""
            record.status = record.status or CLIENT_LEFT
            self._ended(record)

    def _begin(self, scope: Scope) -> RequestRecord:
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        record = RequestRecord(
            given if _REQUEST_ID.match(given) else secrets.token_hex(12),
            scope["method"],
            scope["path"],
            deadline(self._seconds),
            headers.get("traceparent", "")[:_LONGEST_TRACE],
            headers.get("tracestate", "")[:_LONGEST_TRACE],
        )
        attach(scope, record)
        scope["pelton.request_id"] = record.id
        return record


class ApiKey:
    """Says in `scope["pelton.tenant"]` who asks, and refuses strangers every path but /health.

    A key comes as `Authorization: Bearer KEY` (OpenAI's clients) or `x-api-key: KEY` (Anthropic's). All
    keys are compared, by digests of one length, so the time taken says nothing about any of them. With
    no keys everybody is the tenant "". Browsers, which can send neither, are asked for a password: the key.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[TenantKey]) -> None:
        self._app = app
        self._salt = secrets.token_bytes(16)
        self._tenants = [(self._digest(key.key.encode()), key.tenant) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await self._websocket(scope, receive, send)
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        tenant = self._tenant_of(Headers(scope=scope)) if self._tenants else ""
        scope["pelton.tenant"] = record_of(scope).tenant = tenant or ""
        if tenant is None and scope["path"] not in OPEN_PATHS:
            refusal = error_response(
                401,
                "the API key is missing or wrong",
                "invalid_api_key",
                {"WWW-Authenticate": _challenge(Headers(scope=scope))},
                scope["path"],
            )
            return await refusal(scope, receive, send)
        await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page's own connection: its browser sends what it was asked for when the page was opened."""
        if self._tenants and self._tenant_of(Headers(scope=scope)) is None:
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        await self._app(scope, receive, send)

    def _tenant_of(self, headers: Headers) -> str | None:
        given = [headers.get("x-api-key", "")]
        scheme, _, token = headers.get("authorization", "").partition(" ")
        scheme, token = scheme.lower(), token.strip()  # schemes have no case (RFC 9110, 11.1)
        if scheme == "bearer":
            given.append(token)
        elif scheme == "basic":
            given.append(_password(token))
        digests = [self._digest(key.encode("latin-1")) for key in given]
        found = None
        for expected, tenant in self._tenants:
            for digest in digests:
                if hmac.compare_digest(digest, expected):
                    found = tenant
        return found

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._salt).digest()


def _challenge(headers: Headers) -> str:
    is_browser = "text/html" in headers.get("accept", "")
    return (
        'Basic realm="pelton: any name, the API key as password", charset="UTF-8"' if is_browser else "Bearer"
    )


def _password(token: str) -> str:
    """The password of HTTP Basic credentials (RFC 7617), empty where they are none."""
    try:
        return base64.b64decode(token, validate=True).decode("latin-1").partition(":")[2]
    except ValueError:
        return ""


class BodyLimit:
    """413 for a body beyond `most` bytes: before reading where its length is told, else on the way.

    So also for one of more than MOST_PARTS lists, objects and fields, counted as they come: reading them
    costs a hundred times what reading a text costs, and nobody else is served meanwhile. 415 for a compressed
    one: what a small one grows to cannot be told. 400 for one of two lengths.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            refusal = error_response(415, "send the body as it is, not compressed", path=scope["path"])
            return await refusal(scope, receive, send)
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy before this server may take the other for the body's length (RFC 9112, 6.1).
            told, close = "a body's length is told once, not in two ways", {"Connection": "close"}
            return await error_response(400, told, headers=close, path=scope["path"])(scope, receive, send)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._most:
            refusal = error_response(413, self._message(), path=scope["path"])
            return await refusal(scope, receive, send)
        read = parts = 0

        async def bounded() -> Message:
            nonlocal read, parts
            message = await receive()
            body = message.get("body", b"")
            read += len(body)
            parts += sum(map(body.count, _PART_MARKS))
            if read > self._most:
                raise HTTPException(413, self._message())
            if parts > MOST_PARTS:
                raise HTTPException(413, f"a body has at most {MOST_PARTS} lists, objects and fields")
            return message

        await self._app(scope, bounded, send)

    def _message(self) -> str:
        return f"a body has at most {self._most} bytes"


class FullQueue:
    """Tells requests for texts that there is no room before anything is made of them, so that a flood costs
    little: 70 microseconds each; after the body has been read and checked it would be 1,000."""

    def __init__(self, app: ASGIApp, gate: Gate, paths: frozenset[str]) -> None:
        self._app = app
        self._gate = gate
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._paths:
            busy = self._gate.refusal(1, scope["pelton.tenant"])
            if busy is not None:
                headers = {"Retry-After": str(busy.retry_after)}
                refusal = error_response(429, busy.message, headers=headers, path=scope["path"])
                return await refusal(scope, receive, send)
        await self._app(scope, receive, send)
