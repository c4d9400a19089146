"""What may stand after the `?` of the routes under /v1/responses; all else is refused by name."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from ...errors import RequestError

MOST_ITEMS = 100
"""Of one page, as OpenAI has it."""


class FetchQuery(BaseModel):
    """GET /v1/responses/{id}: a response is told whole, with all that was asked for when it was made."""

    model_config = ConfigDict(extra="forbid")

    stream: Literal["false"] | None = Field(default=None, description="Kept responses are not streamed.")


class ItemsQuery(BaseModel):
    """GET /v1/responses/{id}/input_items: one page of them, the latest first unless told otherwise."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=MOST_ITEMS)
    order: Literal["asc", "desc"] = "desc"
    after: str | None = Field(default=None, max_length=256, description="The id of the item before the page.")


def _refuse(request: Request) -> None:
    for name in request.query_params:
        raise RequestError("is no parameter of this route", field=name[:128])


NoQuery = Depends(_refuse)
"""For routes that take no parameters."""
Fetch = Annotated[FetchQuery, Query()]
Items = Annotated[ItemsQuery, Query()]
