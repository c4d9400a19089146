"""What went wrong, in OpenAI's error shape, `{"error": {"message", "type", "param", "code"}}`.

On Anthropic's routes it is theirs: `{"type": "error", "error": {"type", "message"}}`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ...errors import (
    ContextOverflowError,
    EngineRestartingError,
    EngineStoppedError,
    NotFiniteError,
    OutOfBlocksError,
    PeltonError,
    RequestError,
    TemplateError,
)
from ..worker.mailbox import SlowReaderError

log = logging.getLogger("pelton.serve")

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_ANTHROPIC_PATH = re.compile(r"/v1/messages(/|\Z)")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LONGEST_SHOWN = 64
_UNION_TAGS = {"str", "int", "float", "bool", "dict", "list"}


class BusyError(PeltonError):
    """The queue is full; `retry_after` seconds from now there may be room."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LateError(PeltonError):
    """A request took longer than the server lets one take."""


class StoppingError(PeltonError):
    """The server takes no new requests: it is about to end."""


class UnknownModelError(PeltonError):
    """A request for a model that is not served here."""


class UnknownResponseError(PeltonError):
    """A request for a response that is not kept here."""


def status_of(error: Exception) -> int:
    """The HTTP status that an exception comes to."""
    if isinstance(error, NotFiniteError):
        return 500
    if isinstance(error, RequestError | TemplateError):
        return 400
    if isinstance(error, UnknownModelError | UnknownResponseError):
        return 404
    if isinstance(error, SlowReaderError):
        return 408
    if isinstance(error, BusyError):
        return 429
    if isinstance(error, LateError):
        return 504
    if isinstance(error, StoppingError | EngineStoppedError | OutOfBlocksError):
        return 503
    return 500


def body_of(error: Exception) -> dict[str, Any]:
    """The JSON document for an exception; says nothing of the inside where the fault is pelton's own."""
    status = status_of(error)
    if (status == 500 and not isinstance(error, NotFiniteError)) or not isinstance(error, PeltonError):
        return error_body(500, "a fault in the server; its log says more")
    # Subjects of other errors are file names, which are no business of a client.
    message = str(error) if isinstance(error, RequestError) else error.message
    code = None
    if isinstance(error, ContextOverflowError):
        code = "context_length_exceeded"
    elif isinstance(error, UnknownModelError):
        code = "model_not_found"
    return error_body(status, message, _param_of(error), code)


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic_body(status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's error document as Anthropic's clients know it."""
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": body["error"]["message"]}}


def error_response(
    status: int,
    message: str,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    path: str = "",
) -> JSONResponse:
    return _reply(path, status, error_body(status, message, None, code), headers)


def _reply(
    path: str, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The error in the shape of the API that `path` belongs to."""
    shown = anthropic_body(status, body) if _ANTHROPIC_PATH.match(path) else body
    return JSONResponse(shown, status, headers)


def _param_of(error: PeltonError) -> str | None:
    if error.field is not None:
        return error.field
    return error.subject if isinstance(error, RequestError) else None


def renamed(error: RequestError, field: str) -> RequestError:
    """The same error about a field by the name that the client gave it."""
    return type(error)(error.message, field=field, value=error.value)


def install_handlers(app: FastAPI) -> None:
    """Answer every exception of a route in the one shape."""
    app.add_exception_handler(PeltonError, _on_pelton_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_fault)


async def _on_pelton_error(request: Request, error: Exception) -> JSONResponse:
    status = status_of(error)
    if status == 500:
        log.error("%s failed: %s", request.scope["path"], type(error).__name__, exc_info=error)
    headers = None
    if isinstance(error, BusyError | EngineRestartingError):
        headers = {"Retry-After": str(error.retry_after)}
    return _reply(request.scope["path"], status, body_of(error), headers)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nginx's number for it; nobody reads this


async def _on_fault(request: Request, error: Exception) -> JSONResponse:
    return _reply(request.scope["path"], 500, body_of(error))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    body = error_body(error.status_code, error.detail)
    return _reply(request.scope["path"], error.status_code, body, error.headers)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    """A body that does not fit the schema: a 400 naming the first field that is wrong."""
    assert isinstance(error, RequestValidationError)
    return _reply(request.scope["path"], 400, invalid_body(error.errors(), skip=1))


def invalid_body(errors: Sequence[Mapping[str, Any]], skip: int = 0) -> dict[str, Any]:
    """The document for what pydantic says of a body that does not fit its schema.

    It tells of the first field that is wrong; where that may be one of several things, of the one that
    fits furthest. `skip` parts of each place are not the client's.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        return error_body(400, f"the body is not valid JSON: {first['ctx']['error']}")
    if len(first["loc"]) <= skip:
        return error_body(400, "the body must be a JSON object (application/json)")
    same_field = [error for error in errors if error["loc"][skip] == first["loc"][skip]]
    best = max(same_field, key=lambda error: len(error["loc"]))
    name = field_name(best["loc"][skip:])
    return error_body(400, f"{name}: {_reason(best)}", name)


def _reason(error: Mapping[str, Any]) -> str:
    """What is wrong, in words for who wrote the request."""
    if error["type"] == "extra_forbidden":
        return "is no field of this request"
    if error["type"] == "union_tag_not_found":
        return "needs a type"
    if error["type"] == "union_tag_invalid":
        known = error["ctx"]["expected_tags"].replace("<", "").replace(">", "")
        return f"type {error['ctx']['tag'][1:-1][:_LONGEST_SHOWN]!r} is not taken here, only {known}"
    reason: str = error["msg"]
    given = error.get("input")
    if error["type"] == "literal_error" and isinstance(given, str):
        return f"{reason}, not {given[:_LONGEST_SHOWN]!r}"
    return reason


def field_name(location: Sequence[int | str]) -> str:
    """`messages[0].role` from the place of a validation error; tags of unions are left out."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif name and (part in _UNION_TAGS or not _FIELD.match(part)):
            continue
        else:
            name += f".{part[:128]}" if name else part[:128]
    return name
