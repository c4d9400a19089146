"""The input of a kept response, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import RequestError
from .fields import AnyItem, InputMessage
from .queries import ItemsQuery
from .replies import InputItems


def page_of(items: Sequence[AnyItem], response_id: str, query: ItemsQuery) -> InputItems:
    """The items that come after `query.after`, `query.limit` at most. Raises RequestError."""
    ids = [item.id or f"item_{response_id.removeprefix('resp_')}_{at}" for at, item in enumerate(items)]
    order = list(range(len(items)))
    if query.order == "desc":
        order.reverse()
    start = 0
    if query.after is not None:
        # The last of that name: clients may name two items alike, and a page must never come twice.
        start = max((place + 1 for place, at in enumerate(order) if ids[at] == query.after), default=0)
        if not start:
            raise RequestError("is no item of this response", field="after", value=query.after)
    shown = order[start : start + query.limit]
    return InputItems(
        data=[{**_told(items[at]), "id": ids[at]} for at in shown],
        first_id=ids[shown[0]] if shown else None,
        last_id=ids[shown[-1]] if shown else None,
        has_more=start + query.limit < len(items),
    )


def _told(item: AnyItem) -> dict[str, Any]:
    """A text as the part that it stands for."""
    told = item.model_dump(exclude_none=True)
    if isinstance(item, InputMessage) and isinstance(item.content, str):
        kind = "output_text" if item.role == "assistant" else "input_text"
        told["content"] = [{"type": kind, "text": item.content}]
    return told
