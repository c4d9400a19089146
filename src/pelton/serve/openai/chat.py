"""POST /v1/chat/completions: a conversation in, its next message out, whole or streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from ...errors import RequestError
from ...outputs import StreamOutput
from ..answers.gathering import Gathered, Rows, gather
from ..answers.generation import Answer, Caller, Service, Usage
from ..answers.prompts import Prompts
from ..http.events import event
from ..http.failures import renamed
from .fields import ChatRequest, TemplateFields
from .logprobs import chat_logprobs, prompt_logprobs
from .plain_events import PlainEvents
from .replies import (
    CallPiece,
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatFinish,
    ChatLogprobs,
)
from .tooling import CallReader, Tooling, whole_calls


async def render(prompts: Prompts, body: TemplateFields, room: int | None = None) -> list[int]:
    """Token ids of the conversation; `room` as Prompts has it. Raises RequestError naming the message."""
    use = body.tool_use
    try:
        return await prompts.render(
            await asyncio.to_thread(lambda: [message.plain() for message in body.messages]),
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
            options=body.chat_template_kwargs,
            tools=use.definitions if use is not None else (),
            room=room,
        )
    except RequestError as error:
        if error.field is not None and error.field.partition(".")[0] == "options":
            raise renamed(error, "chat_template_kwargs") from None
        raise


class Chat:
    """One request, checked when made; `chunks`, `choices` or `whole` runs it.

    Other formats of conversation (Anthropic's, /v1/responses) are turned into a ChatRequest, run here, and
    `choices` and `whole` turned back, so what a chat can do they can.
    """

    def __init__(self, service: Service, caller: Caller, body: ChatRequest) -> None:
        service.check_model(body.model)
        self._service = service
        self._body = body
        use, params, prompts = body.tool_use, body.params(), service.prompts
        self._tooling = None if use is None else Tooling.of(use, prompts.dialect, prompts.tokenizer, params)
        self._readers: dict[int, CallReader] = {}
        self._answer = Answer(
            service,
            f"chatcmpl-{body.request_id or caller.request_id}",
            [partial(render, service.prompts, body, service.room(body.truncate_prompt_tokens))],
            params if self._tooling is None else self._tooling.params,
            "messages",
            body.terms(caller.tenant),
            body.truncate_prompt_tokens,
            caller.record,
            form_field=body.form_field,
        )

    @property
    def usage(self) -> Usage:
        """Tokens so far; the prompt's are known once the first choice is there."""
        return self._answer.usage

    async def whole(self) -> ChatCompletion:
        choices, answer = await gather(self._answer), self._answer
        reply = ChatCompletion(
            id=answer.id,
            object="chat.completion",
            created=answer.created,
            model=self._service.settings.served_model_name,
            choices=[self._choice(index, choice) for index, choice in enumerate(choices)],
            usage=answer.usage,
        )
        rows = next((choice.prompt_logprobs for choice in choices if choice.prompt_logprobs), None)
        if rows is not None:
            reply.prompt_logprobs = prompt_logprobs(rows)
        if self._body.return_token_ids:
            reply.prompt_token_ids = answer.prompt_ids[0]
        return reply

    async def choices(self) -> AsyncGenerator[ChatChunkChoice, None]:
        """What a stream adds. The first of each choice carries the role, the last its finish reason."""
        begun: set[int] = set()
        async with aclosing(self._answer.pieces()) as pieces:
            async for piece in pieces:
                for opening in () if begun else self._openings():
                    begun.add(opening.index)
                    yield opening
                choice = self._piece(piece, is_first=piece.index not in begun)
                begun.add(piece.index)
                if choice is not None:
                    yield choice

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Events of a stream."""
        async with aclosing(self._text_chunks() if self._is_plain else self._any_chunks()) as chunks:
            async for frame in chunks:
                yield frame
        if self._body.wants_usage:
            chunk = self._chunk([])
            chunk.usage = self._answer.usage
            yield event(chunk)

    @property
    def _is_plain(self) -> bool:
        """Whether most pieces say no more than their text."""
        body = self._body
        return self._tooling is None and not (body.return_token_ids or body.wants_running_usage)

    async def _any_chunks(self) -> AsyncGenerator[bytes, None]:
        is_first = True
        async with aclosing(self.choices()) as choices:
            async for choice in choices:
                chunk = self._chunk([choice])
                if is_first and self._body.return_token_ids:
                    chunk.prompt_token_ids = self._answer.prompt_ids[0]
                is_first = False
                yield event(chunk)

    async def _text_chunks(self) -> AsyncGenerator[bytes, None]:
        def text_chunk(index: int, text: str) -> ChatChunk:
            delta = ChatDelta(content=text)
            values = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            return self._chunk([ChatChunkChoice.model_construct(set(values), **values)])

        plain, begun = PlainEvents(text_chunk), set[int]()
        async with aclosing(self._answer.pieces()) as pieces:
            async for piece in pieces:
                for opening in () if begun else self._openings():
                    begun.add(opening.index)
                    yield event(self._chunk([opening]))
                is_first = piece.index not in begun
                begun.add(piece.index)
                if not is_first and (frame := plain.of(piece)) is not None:
                    yield frame
                elif (choice := self._piece(piece, is_first=is_first)) is not None:
                    yield event(self._chunk([choice]))

    def _chunk(self, choices: list[ChatChunkChoice]) -> ChatChunk:
        chunk = ChatChunk(
            id=self._answer.id,
            object="chat.completion.chunk",
            created=self._answer.created,
            model=self._service.settings.served_model_name,
            choices=choices,
        )
        if self._body.wants_usage:  # null on every chunk but the last, as in OpenAI's streams, unless asked
            chunk.usage = self._answer.usage if self._body.wants_running_usage else None
        return chunk

    def _openings(self) -> list[ChatChunkChoice]:
        """The beginnings of many choices, in order: OpenAI's client falls over a stream that begins with
        another than the first, and which the engine gives a token first is its business."""
        if self._answer.params.n == 1:
            return []
        return [
            ChatChunkChoice(
                index=index,
                delta=ChatDelta(role="assistant", content=""),
                logprobs=None,
                finish_reason=None,
            )
            for index in range(self._answer.params.n)
        ]

    def _piece(self, piece: StreamOutput, *, is_first: bool) -> ChatChunkChoice | None:
        """None where there is nothing to say: a token that is half a character, or held back."""
        wants_tokens = bool(self._body.return_token_ids and piece.token_ids)
        text, calls = self._read(piece.index, piece.text, is_last=piece.finished)
        if not (text or calls or is_first or piece.finished or piece.logprobs or wants_tokens):
            return None
        delta = ChatDelta(tool_calls=calls) if calls else ChatDelta(content=text)
        if text:
            delta.content = text
        if is_first:
            delta.role = "assistant"
        choice = ChatChunkChoice.model_construct(
            {"index", "delta", "logprobs", "finish_reason"},
            index=piece.index,
            delta=delta,
            logprobs=self._logprobs(piece.logprobs),
            finish_reason=self._reason(piece.index, piece.finish_reason),
        )
        if piece.finished:
            choice.stop_reason = piece.stop_reason
        if wants_tokens:
            choice.token_ids = list(piece.token_ids)
        return choice

    def _read(self, index: int, text: str, *, is_last: bool) -> tuple[str, list[CallPiece]]:
        """More of a choice's text: what of it is plain, and what it adds to calls of tools."""
        if self._tooling is None:
            return text, []
        reader = self._readers.get(index)
        if reader is None:
            reader = self._readers[index] = self._tooling.reader()
        return reader.take(text, is_last=is_last)

    def _reason(self, index: int, reason: str | None) -> ChatFinish | None:
        if reason is None:
            return None
        has_calls = index in self._readers and self._readers[index].has_calls
        if reason == "stop":
            return "tool_calls" if has_calls else "stop"
        return "length"

    def _choice(self, index: int, choice: Gathered) -> ChatChoice:
        text, calls = self._read(index, choice.text, is_last=True)
        message = ChatAnswer(role="assistant", content=None if calls and not text else text, refusal=None)
        if calls:
            message.tool_calls = whole_calls(calls)
        reply = ChatChoice(
            index=index,
            message=message,
            logprobs=self._logprobs(choice.logprobs),
            finish_reason=self._reason(index, choice.finish_reason) or "length",
            stop_reason=choice.stop_reason,
        )
        if self._body.return_token_ids:
            reply.token_ids = choice.token_ids
        return reply

    def _logprobs(self, rows: Rows) -> ChatLogprobs | None:
        if rows is None or not self._body.logprobs:
            return None
        return chat_logprobs(rows, self._body.top_logprobs or 0, self._service.prompts.tokenizer)
