"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's API over the chat."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from ...errors import RequestError
from ..answers.generation import Caller, Service, Usage, caller_of
from ..http.events import EventStream, Framing, named_event, while_connected, with_pings
from ..http.failures import anthropic_body, body_of, status_of
from ..http.openapi import STREAM
from ..http.replies import full_reply
from ..openai.chat import Chat, render
from .fields import CHAT_NAMES, CountRequest, MessagesRequest
from .replies import Counted, MessageError, MessageReply, MessageUsage
from .tools import BlockEvents, blocks_of

PING_SECONDS = 15.0
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": MessageError} for status in (400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)
}


def add_messages(app: FastAPI, service: Service) -> None:
    """The routes of this API."""

    @app.post("/v1/messages", response_model=MessageReply, responses={**_ERRORS, 200: STREAM})
    async def messages(request: Request, body: MessagesRequest) -> Response:
        work = Messages(service, caller_of(request), body)
        if not body.stream:
            return full_reply(await while_connected(request, work.whole()))
        frames = work.events()
        first = await while_connected(request, anext(frames))
        pinged = with_pings(frames, named_event("ping", {}), PING_SECONDS)
        return EventStream(first, pinged, FRAMING)

    @app.post("/v1/messages/count_tokens", response_model=Counted, responses=_ERRORS)
    async def count_tokens(body: CountRequest) -> Response:
        service.check_model(body.model)
        talk = body.conversation()
        try:
            ids = await render(service.prompts, body.template(talk))
        except RequestError as error:
            raise talk.in_client_words(error, CHAT_NAMES) from None
        return full_reply(Counted(input_tokens=len(ids)))


def _failure(error: Exception) -> bytes:
    return named_event("error", anthropic_body(status_of(error), body_of(error)))


FRAMING = Framing(_failure, b"")


class Messages:
    """One request, checked when made; `events` or `whole` runs it."""

    def __init__(self, service: Service, caller: Caller, body: MessagesRequest) -> None:
        self._talk = body.conversation()
        self._model = service.settings.served_model_name
        self._id = f"msg_{caller.request_id}"
        try:
            self._chat = Chat(service, caller, body.chat(self._talk))
        except RequestError as error:
            raise self._talk.in_client_words(error, CHAT_NAMES) from None

    async def whole(self) -> MessageReply:
        try:
            reply = await self._chat.whole()
        except RequestError as error:
            raise self._talk.in_client_words(error, CHAT_NAMES) from None
        (choice,) = reply.choices
        reason, sequence = _stop(choice.finish_reason, choice.stop_reason)
        return MessageReply(
            id=self._id,
            model=self._model,
            content=blocks_of(choice.message),
            stop_reason=reason,
            stop_sequence=sequence,
            usage=_usage(reply.usage),
        )

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The typed events of a stream, `message_start` to `message_stop`."""
        blocks = BlockEvents()
        try:
            async with aclosing(self._chat.choices()) as choices:
                last = await anext(choices)
                yield named_event("message_start", {"message": self._begun()})
                yield named_event("ping", {})
                for event in blocks.add(last.delta):
                    yield event
                async for last in choices:
                    for event in blocks.add(last.delta):
                        yield event
        except RequestError as error:
            raise self._talk.in_client_words(error, CHAT_NAMES) from None
        for event in blocks.end():
            yield event
        reason, sequence = _stop(last.finish_reason, last.stop_reason)
        usage = _usage(self._chat.usage).model_dump()
        yield named_event(
            "message_delta", {"delta": {"stop_reason": reason, "stop_sequence": sequence}, "usage": usage}
        )
        yield named_event("message_stop", {})

    def _begun(self) -> dict[str, object]:
        usage = _usage(self._chat.usage)
        begun = MessageReply(
            id=self._id, model=self._model, content=[], stop_reason=None, stop_sequence=None, usage=usage
        )
        return begun.model_dump()


def _stop(finish: str | None, reason: int | str | None) -> tuple[Any, str | None]:
    """Anthropic's stop_reason and stop_sequence for OpenAI's finish_reason and vLLM's stop_reason."""
    if finish == "length":
        return "max_tokens", None
    if finish == "tool_calls":
        return "tool_use", None
    return ("stop_sequence", reason) if isinstance(reason, str) else ("end_turn", None)


def _usage(usage: Usage) -> MessageUsage:
    cached = usage.prompt_tokens_details.cached_tokens
    return MessageUsage(
        input_tokens=usage.prompt_tokens - cached,
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens,
    )
