"""POST /v1/completions: prompts in, how each goes on out, whole or streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

from ..outputs import StreamOutput
from .events import event
from .fields import CompletionRequest
from .gathering import Gathered, gather
from .generation import Answer, Caller, Service
from .logprobs import OffsetLogprobs, prompt_logprobs
from .prompts import Prompts
from .replies import Completion, TextChoice


async def _as_given(ids: list[int]) -> list[int]:
    return ids


def _tokens_of(prompts: Prompts, prompt: str | list[int]) -> Callable[[], Awaitable[list[int]]]:
    return partial(prompts.encode, prompt) if isinstance(prompt, str) else partial(_as_given, prompt)


class TextCompletion:
    """One request, checked when made; `chunks` or `whole` runs it."""

    def __init__(self, service: Service, caller: Caller, body: CompletionRequest) -> None:
        service.check_model(body.model)
        self._service = service
        self._body = body
        self._answer = Answer(
            service,
            f"cmpl-{body.request_id or caller.request_id}",
            [_tokens_of(service.prompts, prompt) for prompt in body.prompts()],
            body.params(),
            "prompt",
            body.terms(caller.tenant),
            body.truncate_prompt_tokens,
            caller.record,
        )
        self._offsets: dict[int, OffsetLogprobs] = {}

    async def whole(self) -> Completion:
        choices = await gather(self._answer)
        reply = self._reply([self._choice(index, choice) for index, choice in enumerate(choices)])
        reply.usage = self._answer.usage
        return reply

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Events of a stream; the last of each choice carries its finish reason."""
        async with aclosing(self._answer.pieces()) as pieces:
            async for piece in pieces:
                wants_tokens = bool(self._body.return_token_ids and piece.token_ids)
                if piece.text or piece.finished or piece.logprobs or wants_tokens:
                    yield event(self._chunk([self._piece(piece)]))
        if self._body.wants_usage:
            chunk = self._reply([])
            chunk.usage = self._answer.usage
            yield event(chunk)

    def _reply(self, choices: list[TextChoice]) -> Completion:
        return Completion(
            id=self._answer.id,
            object="text_completion",
            created=self._answer.created,
            model=self._service.settings.served_model_name,
            choices=choices,
        )

    def _chunk(self, choices: list[TextChoice]) -> Completion:
        chunk = self._reply(choices)
        if self._body.wants_usage:
            chunk.usage = None
        return chunk

    def _piece(self, piece: StreamOutput) -> TextChoice:
        choice = TextChoice.model_construct(
            {"index", "text", "logprobs", "finish_reason"},
            index=piece.index,
            text=piece.text,
            logprobs=None,
            finish_reason=piece.finish_reason,
        )
        if piece.logprobs is not None:
            offsets = self._offsets.setdefault(piece.index, OffsetLogprobs())
            choice.logprobs = offsets.take(piece.logprobs, self._body.logprobs or 0)
        if piece.finished:
            choice.stop_reason = piece.stop_reason
        if self._body.return_token_ids:
            choice.token_ids = list(piece.token_ids)
        return choice

    def _choice(self, index: int, choice: Gathered) -> TextChoice:
        rows = choice.logprobs
        reply = TextChoice(
            index=index,
            text=choice.text,
            logprobs=None if rows is None else OffsetLogprobs().take(rows, self._body.logprobs or 0),
            finish_reason="stop" if choice.finish_reason == "stop" else "length",
            stop_reason=choice.stop_reason,
        )
        if choice.prompt_logprobs is not None:
            reply.prompt_logprobs = prompt_logprobs(choice.prompt_logprobs)
        if self._body.return_token_ids:
            reply.token_ids = choice.token_ids
            reply.prompt_token_ids = self._answer.prompt_ids[index // self._answer.params.n]
        return reply
