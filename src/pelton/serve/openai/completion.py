"""POST /v1/completions: prompts in, how each goes on out, whole or streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from math import fsum

from ...outputs import StreamOutput
from ..answers.gathering import Gathered, gather
from ..answers.generation import Answer, Caller, Service, Usage
from ..answers.prompts import Prompts
from ..http.events import event
from .echo import Echo, joined_logprobs
from .logprobs import OffsetLogprobs, prompt_logprobs
from .plain_events import PlainEvents
from .prompt_fields import CompletionRequest
from .replies import Completion, TextChoice, TextLogprobs


async def _as_given(ids: list[int]) -> list[int]:
    return ids


def tokens_of(
    prompts: Prompts, prompt: str | list[int], field: str, room: int | None
) -> Callable[[], Awaitable[list[int]]]:
    """What gives a prompt's token ids once it is admitted; errors name `field`, `room` as Prompts has it."""
    if isinstance(prompt, str):
        return partial(prompts.encode, prompt, field=field, room=room)
    return partial(_as_given, prompt)


class TextCompletion:
    """One request, checked when made; `chunks` or `whole` runs it."""

    def __init__(self, service: Service, caller: Caller, body: CompletionRequest) -> None:
        service.check_model(body.model)
        room = service.room(body.truncate_prompt_tokens)
        given = body.prompts(room)
        self._service = service
        self._body = body
        self._answer = Answer(
            service,
            f"cmpl-{body.request_id or caller.request_id}",
            [tokens_of(service.prompts, prompt, "prompt", room) for prompt in given],
            body.params(),
            "prompt",
            body.terms(caller.tenant),
            body.truncate_prompt_tokens,
            caller.record,
        )
        is_cut = body.truncate_prompt_tokens is not None
        self._echo = Echo(service.prompts, given, is_cut) if body.echo else None
        self._offsets: dict[int, OffsetLogprobs] = {}

    async def whole(self) -> Completion:
        choices = await gather(self._answer)
        each = self._answer.params.n
        groups = [choices[start : start + each] for start in range(0, len(choices), each)]
        reply = self._reply([])
        for number, group in enumerate(groups):
            rows = next((choice.prompt_logprobs for choice in group if choice.prompt_logprobs), None)
            if self._echo is not None:
                self._echo.keep(number, rows)
            for place, choice in enumerate(self._best(group)):
                shown = await self._choice(len(reply.choices), number, choice)
                if rows is not None and self._body.prompt_logprobs is not None and not place:
                    shown.prompt_logprobs = prompt_logprobs(rows)
                reply.choices.append(shown)
        reply.usage = self._usage
        return reply

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Events of a stream; the last of each choice carries its finish reason."""
        begun: set[int] = set()
        plain = self._plain_events()
        async with aclosing(self._answer.pieces()) as pieces:
            async for piece in pieces:
                if plain is not None and (frame := plain.of(piece)) is not None:
                    yield frame
                    continue
                is_first = piece.index not in begun
                begun.add(piece.index)
                wants_tokens = bool(self._body.return_token_ids and piece.token_ids)
                is_echo = is_first and self._echo is not None
                if piece.text or piece.finished or piece.logprobs or wants_tokens or is_echo:
                    yield event(self._chunk([await self._piece(piece, is_first)]))
        if self._body.wants_usage:
            chunk = self._reply([])
            chunk.usage = self._usage
            yield event(chunk)

    def _plain_events(self) -> PlainEvents | None:
        """None where no piece is only its text."""
        body = self._body
        if body.return_token_ids or body.wants_running_usage or body.scores_only or body.echo:
            return None

        def chunk(index: int, text: str) -> Completion:
            values = {"index": index, "text": text, "logprobs": None, "finish_reason": None}
            return self._chunk([TextChoice.model_construct(set(values), **values)])

        return PlainEvents(chunk)

    @property
    def _usage(self) -> Usage:
        usage = self._answer.usage
        if self._body.scores_only:  # the token that ended it is nobody's
            usage.total_tokens, usage.completion_tokens = usage.prompt_tokens, 0
        return usage

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
            chunk.usage = self._usage if self._body.wants_running_usage else None
        return chunk

    def _best(self, group: list[Gathered]) -> list[Gathered]:
        """The n likeliest of a prompt's texts, the likeliest first; as they are where all are wanted."""
        wanted = self._body.n or 1
        return group if wanted >= len(group) else sorted(group, key=_likelihood, reverse=True)[:wanted]

    async def _piece(self, piece: StreamOutput, is_first: bool) -> TextChoice:
        number = piece.index // self._answer.params.n
        ids = self._answer.prompt_ids[number]
        offsets = self._offsets.setdefault(piece.index, OffsetLogprobs())
        if self._body.scores_only:  # whatever the token that ended it was
            reason = "length" if piece.finished else None
            piece = replace(
                piece, text="", token_ids=(), logprobs=None, finish_reason=reason, stop_reason=None
            )
        choice = TextChoice.model_construct(
            {"index", "text", "logprobs", "finish_reason"},
            index=piece.index,
            text=piece.text,
            logprobs=None,
            finish_reason=piece.finish_reason,
        )
        if is_first and self._echo is not None:
            self._echo.keep(number, piece.prompt_logprobs)
            choice.text = await self._echo.text(number, ids) + choice.text
            choice.logprobs = self._echoed(number, ids, offsets)
        if piece.logprobs is not None:
            rows = offsets.take(piece.logprobs, self._body.logprobs or 0)
            choice.logprobs = rows if choice.logprobs is None else joined_logprobs(choice.logprobs, rows)
        if piece.finished:
            choice.stop_reason = piece.stop_reason
        if self._body.return_token_ids:
            choice.token_ids = list(piece.token_ids)
            if is_first:
                choice.prompt_token_ids = ids
        return choice

    async def _choice(self, index: int, number: int, choice: Gathered) -> TextChoice:
        if self._body.scores_only:
            choice = Gathered(finish_reason="length", logprobs=None if choice.logprobs is None else [])
        ids, offsets = self._answer.prompt_ids[number], OffsetLogprobs()
        text, logprobs = choice.text, None
        if self._echo is not None:
            text, logprobs = await self._echo.text(number, ids) + text, self._echoed(number, ids, offsets)
        if choice.logprobs is not None and self._body.logprobs is not None:
            rows = offsets.take(choice.logprobs, self._body.logprobs)
            logprobs = rows if logprobs is None else joined_logprobs(logprobs, rows)
        reply = TextChoice(
            index=index,
            text=text,
            logprobs=logprobs,
            finish_reason="stop" if choice.finish_reason == "stop" else "length",
            stop_reason=choice.stop_reason,
        )
        if self._body.return_token_ids:
            reply.token_ids = choice.token_ids
            reply.prompt_token_ids = ids
        return reply

    def _echoed(self, number: int, ids: list[int], offsets: OffsetLogprobs) -> TextLogprobs | None:
        if self._echo is None or self._body.logprobs is None:
            return None
        return self._echo.logprobs(number, ids, offsets, self._body.logprobs)


def _likelihood(choice: Gathered) -> float:
    """Log probability of a whole text."""
    return fsum(next(iter(row.values())).logprob for row in choice.logprobs or ())
