"""Web pages of other sites may not use the server through their reader's browser."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .failures import error_response

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(:\d{1,5})?\Z")
_LONGEST_SHOWN = 128


def is_one_of(host: str, names: Collection[str]) -> bool:
    """Whether a host without port is one of the names: `*` is any, `*.example.com` all below that."""
    host = host.lower()
    for name in names:
        name = name.lower()
        if name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False


class OwnHosts:
    """400 for a Host header with another name than the server's own.

    A name of an attacker's may come to point here, and then a browser takes this server for theirs (DNS
    rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and "*" not in self._hosts:
            given = Headers(scope=scope).get("host", "")
            match = _HOST.match(given)
            if match is None or not is_one_of(match[1], self._hosts):
                shown = repr(given[:_LONGEST_SHOWN])
                return await _refuse(scope, receive, send, 400, f"nothing is answered for the host {shown}")
        await self._app(scope, receive, send)


class OwnOrigins:
    """403 for an Origin that is neither one of the server's own hosts nor in `allowed`.

    Programs send no Origin; a server that answers to any host ("*") does not look at it.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], allowed: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            origin = Headers(scope=scope).get("origin")
            if origin is not None and not self._is_own(origin):
                message = "requests from other sites' pages are refused"
                return await _refuse(scope, receive, send, 403, message)
        await self._app(scope, receive, send)

    def _is_own(self, origin: str) -> bool:
        if "*" in self._hosts or "*" in self._allowed or origin in self._allowed:
            return True
        try:
            host = urlsplit(origin).hostname or ""
        except ValueError:
            return False
        return is_one_of(host, self._hosts) or is_one_of(f"[{host}]", self._hosts)


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, message: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        return await send({"type": "websocket.close", "code": 1008})
    await error_response(status, message, path=scope["path"])(scope, receive, send)
