"""One question asked by the page, through the same admission, queue and engine as any client's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from time import monotonic

from ...config import SamplingParams
from ...errors import PeltonError, RequestError
from ...outputs import StreamOutput
from ..answers.generation import Answer, Service
from ..http.events import in_time
from ..http.failures import status_of
from ..http.guard import CLIENT_LEFT
from ..openai.chat import render
from ..openai.fields import ChatMessage, TemplateFields, TermFields
from ..seeing.record import RequestRecord, deadline

PATH = "/ui"
"""Where the page is; its questions are logged and traced as requests to there."""


@dataclass(frozen=True)
class Visitor:
    """Somebody who has the page open, and whose API key they opened it with."""

    service: Service
    tenant: str


@dataclass
class Controls:
    """What a user can turn; the page's inputs are bound to these. None is an input that was emptied: for the
    seed one is drawn."""

    temperature: float | None = 0.7
    top_p: float | None = 0.95
    max_tokens: float | None = 256
    seed: float | None = None

    def params(self) -> SamplingParams:
        """Raises RequestError naming the field that is empty or out of range."""
        return SamplingParams(
            temperature=_number(self.temperature, "temperature"),
            top_p=_number(self.top_p, "top_p"),
            max_tokens=int(_number(self.max_tokens, "max_tokens")),
            seed=None if self.seed is None else int(self.seed),
        )


def _number(value: float | None, field: str) -> float:
    if value is None:
        raise RequestError("needs a number", field=field)
    return float(value)


@dataclass
class Progress:
    """An answer as it comes. Seconds from the question; tokens/s counts from the first token on."""

    text: str = ""
    tokens: int = 0
    first: float | None = None
    elapsed: float = 0.0
    finish_reason: str | None = None
    error: str | None = None
    started: float = field(default_factory=monotonic)

    @property
    def tokens_per_second(self) -> float:
        if self.first is None or self.tokens < 2 or self.elapsed <= self.first:
            return 0.0
        return (self.tokens - 1) / (self.elapsed - self.first)

    @property
    def line(self) -> str:
        """A line of figures about the answer so far."""
        if self.error is not None:
            return self.error
        if self.first is None:
            return "waiting"
        parts = [f"{self.tokens} tokens", f"{self.tokens_per_second:.0f} tokens/s"]
        parts.append(f"first after {self.first * 1e3:.0f} ms")
        return " · ".join([*parts, *([self.finish_reason] if self.finish_reason else [])])


async def talk(
    visitor: Visitor, messages: Sequence[tuple[str, str]], controls: Controls
) -> AsyncGenerator[Progress, None]:
    """The answer to (role, text) messages after each piece; an error is its last state, never raised.

    As any client's request it is its tenant's, has only the time that one may take, and is logged at its end.
    """
    progress, record = Progress(), _begun(visitor)
    record.status = CLIENT_LEFT
    try:
        async with aclosing(in_time(_pieces(visitor, messages, controls, record), record)) as pieces:
            async for piece in pieces:
                _note(progress, piece.text, len(piece.token_ids), piece.finish_reason)
                if piece.finished:
                    record.status = 200
                yield progress
    except PeltonError as error:
        record.status, progress.error = status_of(error), str(error)
        yield progress
    finally:
        visitor.service.end(record)


def _begun(visitor: Visitor) -> RequestRecord:
    until = deadline(visitor.service.settings.request_timeout)
    return RequestRecord(f"page-{token_hex(8)}", "POST", PATH, until, tenant=visitor.tenant, route=PATH)


def _pieces(
    visitor: Visitor, messages: Sequence[tuple[str, str]], controls: Controls, record: RequestRecord
) -> AsyncGenerator[StreamOutput, None]:
    """Raises RequestError for controls out of range."""
    service = visitor.service
    body = TemplateFields(messages=[ChatMessage(role=role, content=text) for role, text in messages])
    work = [partial(render, service.prompts, body, service.room(None))]
    terms = TermFields().terms(visitor.tenant)
    answer = Answer(service, record.id, work, controls.params(), "messages", terms, record=record)
    return answer.pieces()


def _note(progress: Progress, text: str, tokens: int, finish_reason: str | None) -> None:
    progress.text += text
    progress.tokens += tokens
    progress.elapsed = monotonic() - progress.started
    progress.finish_reason = finish_reason
    if progress.first is None and tokens:
        progress.first = progress.elapsed
