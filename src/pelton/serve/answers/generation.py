"""One HTTP request's answer as it comes, from admission to its end, over all its prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import InitVar, dataclass, field, replace
from time import monotonic, time

from fastapi import Request
from pydantic import BaseModel

from ...config import SamplingParams
from ...errors import NotFiniteError, RequestError
from ...outputs import StreamOutput
from ...terms import ORDINARY, RequestTerms
from ...text.grammar_check import GrammarCheck
from ..http.admission import Gate
from ..http.failures import UnknownModelError, renamed
from ..seeing.logs import log_request
from ..seeing.meter import RequestMeter
from ..seeing.metrics import Metrics
from ..seeing.record import RequestRecord, record_of
from ..settings import ServerSettings
from ..worker.client import EngineClient
from .grammars import Grammars
from .prompts import Prompts


# In the words of OpenAI's API; the other APIs' figures are made of these.
class PromptTokensDetails(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


@dataclass
class Service:
    """All that a route needs; made once when the server starts."""

    settings: ServerSettings
    client: EngineClient
    prompts: Prompts
    gate: Gate
    metrics: Metrics
    guard: InitVar[GrammarCheck]
    on_end: list[Callable[[RequestRecord], None]] = field(default_factory=lambda: [log_request])
    """Told of every request that has ended."""
    created: int = field(default_factory=lambda: int(time()))

    def __post_init__(self, guard: GrammarCheck) -> None:
        self.grammars = Grammars(guard)

    def end(self, record: RequestRecord) -> None:
        """A part of a request has ended; with the last one the request, and all are told."""
        record.parts -= 1
        if record.parts:
            return
        record.ended = monotonic()
        for tell in self.on_end:
            tell(record)

    def room(self, truncate: int | None) -> int | None:
        """Tokens that a prompt may have; None where it is cut to fit."""
        return None if truncate is not None else self.client.facts.context_length

    def check_model(self, name: str | None) -> None:
        """Raises UnknownModelError unless the request names no model or the one that is served."""
        if name is not None and name != self.settings.served_model_name:
            raise UnknownModelError(
                f"{name[:256]!r} is not served here, only {self.settings.served_model_name!r}", field="model"
            )


@dataclass(frozen=True)
class Caller:
    """Who sent a request, and the id it goes by."""

    request_id: str
    tenant: str = ""
    record: RequestRecord | None = None


def caller_of(request: Request) -> Caller:
    """What the server's guards found out about a request."""
    record = record_of(request.scope)
    return Caller(record.id, record.tenant, record)


class Answer:
    """Streams a request's pieces and keeps what the reply says about it besides.

    `prompts` are called after admission, so a full queue costs nothing. Choice j of prompt i has the
    index i * n + j. Prompts are known once the first piece is there. `truncate` keeps that many of a
    prompt's last tokens, -1 as many as fit the context beside `max_tokens`.
    """

    def __init__(
        self,
        service: Service,
        request_id: str,
        prompts: Sequence[Callable[[], Awaitable[list[int]]]],
        params: SamplingParams,
        prompt_field: str,
        terms: RequestTerms = ORDINARY,
        truncate: int | None = None,
        record: RequestRecord | None = None,
        *,
        form_field: str = "structured_outputs",
    ) -> None:
        _check_count(params.n * len(prompts), params.n, service.gate.capacity, prompt_field)
        self.params = params
        self.id = request_id
        self.created = int(time())
        self.prompt_ids: list[list[int]] = []
        self.completion_tokens = 0
        self._service = service
        self._prompts = prompts
        self._prompt_field = prompt_field
        self._form_field = form_field
        self._terms = terms
        self._truncate = truncate
        self._record = record
        self._cached: dict[int, int] = {}

    @property
    def usage(self) -> Usage:
        """Tokens of all prompts and all texts so far; how many of the prompts' a cache had."""
        prompt_tokens = sum(map(len, self.prompt_ids))
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=prompt_tokens + self.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(self._cached.values())),
        )

    async def pieces(self) -> AsyncGenerator[StreamOutput, None]:
        """Raises PeltonErrors; closing it frees all that the request holds."""
        arrival = monotonic()
        with self._service.gate.admit(self.params.n * len(self._prompts), self._terms.tenant):
            if self.params.structured_outputs is not None:
                await self._service.grammars.check(self.params.structured_outputs, self._form_field)
            for prompt in self._prompts:
                self.prompt_ids.append(self._shortened(await prompt()))
            streams = [self._one(number, ids, arrival) for number, ids in enumerate(self.prompt_ids)]
            merged = streams[0] if len(streams) == 1 else merge(streams)
            async with aclosing(merged) as pieces:
                async for piece in pieces:
                    self.completion_tokens += len(piece.token_ids)
                    self._cached.setdefault(piece.index // self.params.n, piece.num_cached_tokens)
                    yield piece

    def _shortened(self, ids: list[int]) -> list[int]:
        if self._truncate is None:
            return ids
        if self._truncate > 0:
            return ids[-self._truncate :]
        room = self._service.client.facts.context_length - max(self.params.max_tokens or 1, 1)
        return ids[-max(room, 1) :]

    async def _one(self, number: int, ids: list[int], arrival: float) -> AsyncGenerator[StreamOutput, None]:
        meter = RequestMeter(self._service.metrics, arrival, len(ids), self.params, self._record)
        name = self.id if len(self._prompts) == 1 else f"{self.id}-{number}"
        completed = False
        try:
            async with aclosing(self._service.client.stream(ids, self.params, name, self._terms)) as stream:
                async for piece in stream:
                    meter.take(piece)
                    if piece.error is not None:
                        raise piece.error
                    yield replace(piece, index=number * self.params.n + piece.index) if number else piece
            completed = True
        except NotFiniteError:
            raise  # no field is to blame
        except RequestError as error:
            meter.refuse()
            if error.field in (None, "prompt_token_ids"):  # the engine's name for what it is given
                raise renamed(error, self._prompt_field) from None
            raise
        finally:
            meter.end(completed)


def _check_count(sequences: int, each: int, most: int, prompt_field: str) -> None:
    """One request is never more than the queue takes, however idle the server is."""
    if sequences > most:
        field = "n" if each > 1 else prompt_field
        raise RequestError(f"asks for {sequences} texts in all, the most is {most}", field=field, value=each)


async def merge(
    streams: Sequence[AsyncGenerator[StreamOutput, None]],
) -> AsyncGenerator[StreamOutput, None]:
    """Pieces of several streams in the order they come; the first failure ends them all.

    Each waits until its piece is taken: what a slow reader leaves is bounded where it waits before.
    """
    queue: asyncio.Queue[StreamOutput | Exception | None] = asyncio.Queue(1)

    async def pump(stream: AsyncGenerator[StreamOutput, None]) -> None:
        try:
            async with aclosing(stream) as pieces:
                async for piece in pieces:
                    await queue.put(piece)
            await queue.put(None)
        except Exception as error:  # it must reach who reads the queue, whatever it is
            await queue.put(error)

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    left = len(tasks)
    try:
        while left:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
