"""The routes under /v1/responses."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from ...errors import RequestError
from ..answers.generation import Service, caller_of
from ..http.events import EventStream, Framing, named_event, while_connected
from ..http.failures import body_of
from ..http.openapi import STREAM
from ..http.replies import full_reply
from .fields import ResponsesRequest
from .listing import page_of
from .queries import Fetch, Items, NoQuery
from .replies import Deleted, InputItems, ResponseReply
from .respond import Respond
from .store import ResponseStore


def add_responses(app: FastAPI, service: Service) -> None:
    """The routes of this API, over one store."""
    store = ResponseStore()

    @app.post("/v1/responses", response_model=ResponseReply, responses={200: STREAM}, dependencies=[NoQuery])
    async def responses(request: Request, body: ResponsesRequest) -> Response:
        work = Respond(service, store, caller_of(request), body)
        if body.background:
            return full_reply(work.start())
        if not body.stream:
            return full_reply(await while_connected(request, work.whole()))
        frames = work.events()
        first = await while_connected(request, anext(frames))
        return EventStream(first, frames, FRAMING)

    @app.get("/v1/responses/{response_id}", response_model=ResponseReply)
    async def fetch(request: Request, response_id: str, query: Fetch) -> Response:
        return full_reply(store.get(caller_of(request).tenant, response_id).reply)

    @app.delete("/v1/responses/{response_id}", response_model=Deleted, dependencies=[NoQuery])
    async def delete(request: Request, response_id: str) -> Response:
        store.delete(caller_of(request).tenant, response_id)
        return full_reply(Deleted(id=response_id))

    @app.post("/v1/responses/{response_id}/cancel", response_model=ResponseReply, dependencies=[NoQuery])
    async def cancel(request: Request, response_id: str) -> Response:
        kept = store.get(caller_of(request).tenant, response_id)
        if not kept.reply.background:
            raise RequestError("only what runs in the background can be cancelled", field="response_id")
        if kept.task is not None:
            kept.task.cancel()
            await kept.over.wait()
        return full_reply(kept.reply)

    @app.get("/v1/responses/{response_id}/input_items", response_model=InputItems)
    async def input_items(request: Request, response_id: str, query: Items) -> Response:
        kept = store.get(caller_of(request).tenant, response_id)
        return full_reply(page_of(kept.items, response_id, query))


def _failure(error: Exception) -> bytes:
    told = body_of(error)["error"]
    return named_event("error", {"code": told["code"], "message": told["message"], "param": told["param"]})


FRAMING = Framing(_failure, b"")
"""Failures in the middle are `response.failed` events; this is for one in telling of them."""
