"""Replies that are of no one API, and how any is written."""

from __future__ import annotations

from typing import Literal

from fastapi.responses import Response
from pydantic import BaseModel


def json_reply(reply: BaseModel) -> Response:
    """Fields that were never set stay out, so what is null was said to be."""
    return Response(reply.model_dump_json(exclude_unset=True), media_type="application/json")


def full_reply(reply: BaseModel) -> Response:
    """Every field, set or not: the newer APIs leave none out."""
    return Response(reply.model_dump_json(), media_type="application/json")


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Version(BaseModel):
    version: str
