"""OpenAI batch files through the same code as the routes, in one continuous batch, without HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from pydantic import BaseModel, ValidationError

from ...errors import RequestError
from ..answers.generation import Caller, Service
from ..http.failures import body_of, error_body, invalid_body, status_of
from ..openai.chat import Chat
from ..openai.completion import TextCompletion
from ..openai.embeddings import Embed
from ..openai.fields import ChatRequest
from ..openai.prompt_fields import CompletionRequest, EmbeddingRequest
from ..responses.fields import ResponsesRequest
from ..responses.respond import Respond
from ..responses.store import ResponseStore
from .lines import BatchLine, ReadLine

log = logging.getLogger("pelton.serve")

Work = Callable[[Service, ResponseStore, Caller, Mapping[str, Any]], Awaitable[dict[str, Any]]]


async def _chat(service: Service, store: ResponseStore, caller: Caller, body: Mapping[str, Any]) -> Any:
    return _sparse(await Chat(service, caller, _whole(ChatRequest.model_validate(body))).whole())


async def _completion(service: Service, store: ResponseStore, caller: Caller, body: Mapping[str, Any]) -> Any:
    request = _whole(CompletionRequest.model_validate(body))
    return _sparse(await TextCompletion(service, caller, request).whole())


async def _embedding(service: Service, store: ResponseStore, caller: Caller, body: Mapping[str, Any]) -> Any:
    reply = await Embed(service, caller, EmbeddingRequest.model_validate(body)).whole()
    return reply.model_dump(mode="json")


async def _response(service: Service, store: ResponseStore, caller: Caller, body: Mapping[str, Any]) -> Any:
    request = _whole(ResponsesRequest.model_validate(body))
    if request.background:
        raise RequestError("a batch waits for its answers anyway", field="background", value=True)
    return (await Respond(service, store, caller, request).whole()).model_dump(mode="json")


WORK: Mapping[str, Work] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embedding,
    "/v1/responses": _response,
}
"""What a line's url may be."""


def _whole(request: Any) -> Any:
    if request.stream:
        raise RequestError("is not for batches", field="stream", value=True)
    return request


def _sparse(reply: BaseModel) -> dict[str, Any]:
    return reply.model_dump(mode="json", exclude_unset=True)


@dataclass
class BatchTotals:
    """What came of a run so far."""

    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def take(self, answer: Mapping[str, Any]) -> None:
        response = answer["response"]
        if response is None or response["status_code"] != 200:
            self.failed += 1
            return
        self.answered += 1
        usage = response["body"]["usage"]
        self.prompt_tokens += usage.get("prompt_tokens", usage.get("input_tokens", 0))
        self.completion_tokens += usage.get("completion_tokens", usage.get("output_tokens", 0))
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        self.cached_tokens += details.get("cached_tokens", 0)


MOST_HELD = 4
"""Answers that may wait for those before them, for each line under way."""


@dataclass
class BatchRun:
    """Answers lines, `at_once` of them under way, in whatever order the engine does; they are written in the
    lines' order, for which those that come early wait."""

    service: Service
    at_once: int
    totals: BatchTotals = field(default_factory=BatchTotals)
    _store: ResponseStore = field(default_factory=ResponseStore)

    async def run(self, lines: Iterator[ReadLine], write: Callable[[ReadLine, str], None]) -> None:
        """`write` gets each line and its answer, one line of JSON."""
        began = perf_counter()
        answers: deque[tuple[ReadLine, asyncio.Task[dict[str, Any]]]] = deque()
        running: set[asyncio.Task[dict[str, Any]]] = set()
        ended = asyncio.Event()

        def end(task: asyncio.Task[dict[str, Any]]) -> None:
            running.discard(task)
            ended.set()

        try:
            for read in lines:
                while len(running) >= self.at_once:
                    ended.clear()
                    await ended.wait()
                    self._write_ready(answers, write)
                if len(answers) >= (1 + MOST_HELD) * self.at_once:
                    await asyncio.wait([answers[0][1]])
                    self._write_ready(answers, write)
                task = asyncio.create_task(self._answer(read))
                running.add(task)
                task.add_done_callback(end)
                answers.append((read, task))
            while answers:
                await asyncio.wait([answers[0][1]])
                self._write_ready(answers, write)
            self.totals.seconds = perf_counter() - began
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _write_ready(
        self,
        answers: deque[tuple[ReadLine, asyncio.Task[dict[str, Any]]]],
        write: Callable[[ReadLine, str], None],
    ) -> None:
        """Write the answers that have none before them any more."""
        while answers and answers[0][1].done():
            read, task = answers.popleft()
            answer = task.result()
            self.totals.take(answer)
            write(read, json.dumps(answer, ensure_ascii=True, allow_nan=False))

    async def _answer(self, read: ReadLine) -> dict[str, Any]:
        name = f"batch_req_{read.number}"
        answer: dict[str, Any] = {"id": name, "custom_id": read.custom_id, "response": None, "error": None}
        if read.line is None:
            message = f"line {read.number}: {read.fault}"
            return {**answer, "error": {"code": "invalid_line", "message": message}}
        status, body = await self._respond(read.line, name)
        return {**answer, "response": {"status_code": status, "request_id": name, "body": body}}

    async def _respond(self, line: BatchLine, name: str) -> tuple[int, dict[str, Any]]:
        work = WORK.get(line.url)
        if work is None:
            return 404, error_body(404, f"only {', '.join(WORK)} are answered in batches", "url")
        try:
            return 200, await work(self.service, self._store, Caller(name), line.body)
        except ValidationError as error:
            return 400, invalid_body(error.errors(include_url=False))
        except Exception as error:  # a line can only fail itself
            status = status_of(error)
            if status == 500:
                log.error("a line of a batch failed: %s", type(error).__name__, exc_info=error)
            return status, body_of(error)
