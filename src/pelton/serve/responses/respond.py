"""A request to /v1/responses: OpenAI's newer API over the chat."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import time
from typing import Any

from ...errors import RequestError
from ..answers.generation import Caller, Service, Usage
from ..http.events import in_time, named_event
from ..http.failures import UnknownResponseError, body_of, status_of
from ..openai.chat import Chat
from ..openai.fields import ChatMessage
from .fields import CHAT_NAMES, ResponsesRequest
from .output import Event, Output
from .replies import Incomplete, InputDetails, OutputDetails, ResponseFault, ResponseReply, ResponseUsage
from .store import Kept, ResponseStore
from .tools import NamedTool

log = logging.getLogger("pelton.serve")

_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
"""Of the short list that OpenAI's clients know."""


class Respond:
    """One request, checked when made; `events`, `whole` or `start` runs it."""

    def __init__(
        self, service: Service, store: ResponseStore, caller: Caller, body: ResponsesRequest
    ) -> None:
        body.check()
        self._store, self._tenant, self._body = store, caller.tenant, body
        self._service, self._record = service, caller.record
        self._talk = body.conversation(self._before())
        try:
            self._chat = Chat(service, caller, body.chat(self._talk))
        except RequestError as error:
            raise self._talk.in_client_words(error, CHAT_NAMES) from None
        # Not the request's id: a client may use that one again, and here it names something kept.
        self._name = secrets.token_hex(16)
        self.reply = _begun(f"resp_{self._name}", service.settings.served_model_name, body)
        start = 1 if body.instructions is not None else 0  # instructions hold for one response only
        self._kept = Kept(self.reply, body.items, self._talk.messages[start:])

    def _before(self) -> list[ChatMessage]:
        name = self._body.previous_response_id
        if name is None:
            return []
        try:
            before = self._store.get(self._tenant, name)
        except UnknownResponseError as error:
            raise RequestError(error.message, field="previous_response_id") from None
        if before.reply.status not in ("completed", "incomplete"):
            raise RequestError(f"is {before.reply.status}", field="previous_response_id", value=name)
        return before.with_answer()

    async def whole(self) -> ResponseReply:
        """The response, done. Raises PeltonErrors."""
        async with aclosing(self._run()) as events:
            async for _ in events:
                pass
        return self.reply

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The typed events of a stream, from `response.created` to how it ended."""
        number = 0
        async with aclosing(self._told()) as events:
            async for kind, data in events:
                yield named_event(kind, {"sequence_number": number, **data})
                number += 1

    def start(self) -> ResponseReply:
        """Run it in the background; what it comes to is fetched later. The request ends with it."""
        if self._record is not None:
            self._record.parts += 1
        self._kept.task = asyncio.get_running_loop().create_task(self._work())
        self._store.put(self._tenant, self._kept)
        return self.reply

    async def _work(self) -> None:
        events = self._run() if self._record is None else in_time(self._run(), self._record)
        try:
            async with aclosing(events):
                async for _ in events:
                    pass
        except asyncio.CancelledError:
            self.reply.status = "cancelled"
        except Exception as error:  # nobody else would be told
            self._fail(error)
        if self.reply.status in ("failed", "cancelled"):
            self._kept.forget_input()
        self._kept.task = None
        self._kept.over.set()
        if self._store.holds(self._tenant, self.reply.id):
            self._store.put(self._tenant, self._kept)
        if self._record is not None:
            self._service.end(self._record)

    async def _told(self) -> AsyncGenerator[Event, None]:
        """What `_run` gives; a failure in the middle is the last event."""
        has_begun = False
        try:
            async with aclosing(self._run()) as events:
                async for event in events:
                    has_begun = True
                    yield event
        except Exception as error:  # the status is sent already
            if not has_begun:
                raise
            self._fail(error)
            yield "response.failed", {"response": self.reply.model_dump()}

    async def _run(self) -> AsyncGenerator[Event, None]:
        output = Output(self._name)
        self.reply.output = output.items
        try:
            async with aclosing(self._chat.choices()) as choices:
                last = await anext(choices)
                self.reply.status = "in_progress"
                for kind in ("response.created", "response.in_progress"):
                    yield kind, {"response": self.reply.model_dump()}
                for event in output.add(last):
                    yield event
                async for last in choices:
                    for event in output.add(last):
                        yield event
        except RequestError as error:
            raise self._talk.in_client_words(error, CHAT_NAMES) from None
        is_complete = last.finish_reason != "length"
        for event in output.end(is_complete):
            yield event
        self._finish(is_complete)
        yield f"response.{self.reply.status}", {"response": self.reply.model_dump()}

    def _finish(self, is_complete: bool) -> None:
        reply = self.reply
        reply.status, reply.completed_at = "completed", int(time())
        if not is_complete:
            reply.status, reply.incomplete_details = "incomplete", Incomplete(reason="max_output_tokens")
        reply.usage = _usage(self._chat.usage)
        if self._body.stored:
            self._store.put(self._tenant, self._kept)

    def _fail(self, error: Exception) -> None:
        status = status_of(error)
        if status == 500:
            log.error("a response failed: %s", type(error).__name__, exc_info=error)
        self.reply.status = "failed"
        code = _CODES.get(status, "server_error")
        self.reply.error = ResponseFault(code=code, message=body_of(error)["error"]["message"])


def _begun(name: str, model: str, body: ResponsesRequest) -> ResponseReply:
    return ResponseReply(
        id=name,
        created_at=int(time()),
        status="queued",
        background=bool(body.background),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        metadata=dict(body.metadata or {}),
        model=model,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        store=body.stored,
        text=_format(body),
        tool_choice=_choice(body),
        tools=[tool.model_dump() for tool in body.tools or ()],
        temperature=1.0 if body.temperature is None else body.temperature,
        top_logprobs=body.top_logprobs or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        user=body.user,
    )


def _format(body: ResponsesRequest) -> dict[str, Any]:
    given = None if body.text is None else body.text.format
    return {"format": {"type": "text"} if given is None else given.model_dump(by_alias=True)}


def _choice(body: ResponsesRequest) -> str | dict[str, Any]:
    given = body.tool_choice
    return given.model_dump() if isinstance(given, NamedTool) else given or "auto"


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(),
        total_tokens=usage.total_tokens,
    )
