"""Web pages of other sites may not use the server through their reader's browser."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .failures import error_response


class OwnOrigins:
    """403 for an Origin that is neither one of the server's own hosts nor in `allowed`.

    The Host header is checked for the same reason: a name of an attacker's may come to point here (DNS
    rebinding). Programs send no Origin; a server that answers to any host ("*") does not look at it.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], allowed: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            origin = Headers(scope=scope).get("origin")
            if origin is not None and not self._is_own(origin):
                if scope["type"] == "websocket":
                    await receive()
                    return await send({"type": "websocket.close", "code": 1008})
                refusal = error_response(
                    403, "requests from other sites' pages are refused", path=scope["path"]
                )
                return await refusal(scope, receive, send)
        await self._app(scope, receive, send)

    def _is_own(self, origin: str) -> bool:
        if "*" in self._hosts or "*" in self._allowed or origin in self._allowed:
            return True
        try:
            host = urlsplit(origin).hostname or ""
        except ValueError:
            return False
        return host in self._hosts or f"[{host}]" in self._hosts
