"""The OpenAPI document, made to say what is so: no 422, streams, limits of numbers, keys if asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from ...config import LIMITS
from .guard import OPEN_PATHS

STREAM: dict[str, Any] = {
    "description": "The answer; with `stream` true as server-sent events",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
                "required": ["data"],
            }
        }
    },
}
"""What a route that streams says of its answers with status 200; the schema is that of one event."""
PLAIN: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}


class DescribedApp(FastAPI):
    """An application whose document is corrected once it is made.

    has_keys: whether keys are asked for. served: the one model that requests may name.
    """

    has_keys = False
    served = ""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            _without_422(document)
            for schema in document["components"]["schemas"].values():
                _with_limits(schema)
                _with_model(schema, self.served)
            if self.has_keys:
                _with_keys(document)
        return super().openapi()


def _without_422(document: dict[str, Any]) -> None:
    """FastAPI says it of every route with parameters; here a body that does not fit is a 400."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _with_limits(schema: dict[str, Any]) -> None:
    """Bounds of sampling parameters, which are checked where SamplingParams are made."""
    properties: Mapping[str, dict[str, Any]] = schema.get("properties", {})
    if "temperature" not in properties or "model" not in properties or schema.get("type") != "object":
        return
    for name, field in properties.items():
        for kind in (field, *field.get("anyOf", ())):
            if name in LIMITS and kind.get("type") in ("integer", "number"):
                low, high, low_is_open = LIMITS[name]
                kind.setdefault("exclusiveMinimum" if low_is_open else "minimum", low)
                kind.setdefault("maximum", high)


def _with_model(schema: dict[str, Any], served: str) -> None:
    """Of what may be left out in a request, `model` has no other value."""
    field: dict[str, Any] = schema.get("properties", {}).get("model", {})
    for kind in field.get("anyOf", ()):
        if kind.get("type") == "string":
            kind["enum"] = [served]


def _with_keys(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    document["security"] = [{"bearer": []}, {"key": []}]
    for path in OPEN_PATHS:
        for operation in document["paths"].get(path, {}).values():
            operation["security"] = []
