"""OpenVINO GenAI behind OpenAI's completion routes, since its model server is not on PyPI.

    OPENVINO/bin/python openvino_server.py MODEL --port 8000 --threads 2

Only what a load generator asks for: greedy or sampled text, streamed or whole, `ignore_eos`, usage. One
thread steps the pipeline; requests join its batch as they come.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import openvino
import openvino_genai as genai
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

MOST_TOKENS = 4096
IDLE_SECONDS = 0.5


class Request(BaseModel):
    """The fields of both routes that are understood; others are ignored."""

    prompt: str | list[int] = ""
    messages: list[dict[str, str]] = []
    max_tokens: int = 16
    temperature: float = 1.0
    ignore_eos: bool = False
    stream: bool = False
    stream_options: dict[str, bool] = {}


@dataclass
class Running:
    """A request in the batch; `tokens` carries lists of new ids to its event loop, None at the end."""

    loop: asyncio.AbstractEventLoop
    handle: genai.GenerationHandle
    tokens: asyncio.Queue[list[int] | None] = field(default_factory=asyncio.Queue)

    def put(self, item: list[int] | None) -> None:
        self.loop.call_soon_threadsafe(self.tokens.put_nowait, item)


class Batch:
    """The pipeline and the thread that steps it."""

    def __init__(self, model: str, threads: int) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = 512
        properties = {"INFERENCE_NUM_THREADS": threads}
        self._pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
        self.tokenizer = self._pipeline.get_tokenizer()
        self._arrived: list[tuple[list[int], genai.GenerationConfig, Running]] = []
        self._wake = threading.Condition()
        self._count = 0
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, ids: list[int], config: genai.GenerationConfig) -> Running:
        running = Running(asyncio.get_running_loop(), None)
        with self._wake:
            self._arrived.append((ids, config, running))
            self._wake.notify()
        return running

    def _run(self) -> None:
        batch: list[Running] = []
        while True:
            with self._wake:
                if not self._arrived and not batch:
                    self._wake.wait(IDLE_SECONDS)
                arrived, self._arrived = self._arrived, []
            for ids, config, running in arrived:
                tensor = openvino.Tensor(np.array([ids], dtype=np.int64))
                running.handle = self._pipeline.add_request(self._count, tensor, config)
                self._count += 1
                batch.append(running)
            if batch:
                self._pipeline.step()
                batch = [running for running in batch if not _deliver(running)]


def _deliver(running: Running) -> bool:
    """Send on what a step added to a request; whether it has ended."""
    while running.handle.can_read():
        for output in running.handle.read().values():
            running.put(list(output.generated_ids))
    ended = running.handle.get_status() != genai.GenerationStatus.RUNNING
    if ended:
        running.put(None)
    return bool(ended)


def config_of(request: Request) -> genai.GenerationConfig:
    config = genai.GenerationConfig(max_new_tokens=min(request.max_tokens, MOST_TOKENS))
    config.ignore_eos = request.ignore_eos
    config.do_sample = request.temperature > 0.0
    if config.do_sample:
        config.temperature = request.temperature
    return config


async def pieces(batch: Batch, running: Running) -> AsyncIterator[tuple[str, int]]:
    """New text and the number of tokens behind it; text waits while its last character is unfinished."""
    ids: list[int] = []
    told = 0
    while (new := await running.tokens.get()) is not None:
        ids += new
        text = batch.tokenizer.decode(ids)
        ready = text[told:] if not text.endswith("\ufffd") else ""
        told += len(ready)
        yield ready, len(new)


def make_app(batch: Batch, name: str) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [{"id": name, "object": "model"}]}

    @app.post("/v1/completions")
    async def completions(request: Request) -> object:
        given = request.prompt
        ids = given if isinstance(given, list) else _encode(batch, given)
        return await _answer(batch, name, request, ids, "text_completion")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> object:
        text = batch.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True)
        return await _answer(batch, name, request, _encode(batch, text), "chat.completion")

    return app


def _encode(batch: Batch, text: str) -> list[int]:
    return [int(token) for token in batch.tokenizer.encode(text, add_special_tokens=False).input_ids.data[0]]


async def _answer(batch: Batch, name: str, request: Request, ids: list[int], kind: str) -> object:
    running = batch.add(ids, config_of(request))
    if request.stream:
        return StreamingResponse(_events(batch, running, name, request, len(ids), kind), media_type=EVENTS)
    text, count = "", 0
    async for part, tokens in pieces(batch, running):
        text, count = text + part, count + tokens
    ended = _ending(request, count)
    choice = {"index": 0, "finish_reason": ended, **_content(kind, text, is_delta=False)}
    return JSONResponse(
        {"object": kind, "model": name, "choices": [choice], "usage": _usage(len(ids), count)}
    )


async def _events(
    batch: Batch, running: Running, name: str, request: Request, prompt_tokens: int, kind: str
) -> AsyncIterator[str]:
    chunk = {"object": kind if kind == "text_completion" else f"{kind}.chunk", "model": name}
    count = 0
    async for part, tokens in pieces(batch, running):
        count += tokens
        choice = {"index": 0, "finish_reason": None, **_content(kind, part, is_delta=True)}
        yield f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n"
    last = {"index": 0, "finish_reason": _ending(request, count), **_content(kind, "", is_delta=True)}
    yield f"data: {json.dumps({**chunk, 'choices': [last]})}\n\n"
    if request.stream_options.get("include_usage"):
        yield f"data: {json.dumps({**chunk, 'choices': [], 'usage': _usage(prompt_tokens, count)})}\n\n"
    yield "data: [DONE]\n\n"


EVENTS = "text/event-stream"


def _content(kind: str, text: str, *, is_delta: bool) -> dict[str, object]:
    if kind == "text_completion":
        return {"text": text}
    return {"delta" if is_delta else "message": {"role": "assistant", "content": text}}


def _ending(request: Request, count: int) -> str:
    return "length" if count >= min(request.max_tokens, MOST_TOKENS) else "stop"


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="model")
    options = parser.parse_args()
    app = make_app(Batch(options.model, options.threads), options.name)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
