"""API keys, the bounded queue, and how a server ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from pelton.errors import ConfigError
from pelton.serve.events import EventStream
from pelton.serve.settings import ServerSettings

from .serving import NAME, PATIENCE, Served, serving

MAIN = "from pelton.cli.main import main; main()"
KEY = "sk-correct-horse"
LONG = {"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def served(real_model_path: Path) -> Iterator[Served]:
    with serving(real_model_path, max_num_seqs=2, max_queue=1, api_key=KEY) as served:
        served.http.headers["Authorization"] = f"Bearer {KEY}"
        yield served


def test_every_route_but_health_asks_for_the_key(served: Served) -> None:
    from pelton.serve.app import make_app

    paths = {getattr(route, "path", "") for route in make_app(served.service).routes}
    assert "/v1/chat/completions" in paths
    odd = {"//health", "/health/", "/Health", "/%2e/health", "/v1/../metrics", "/nowhere"}
    with httpx.Client(base_url=served.url) as stranger:
        for path in (paths | odd) - {"/health"}:
            for method in ("GET", "POST", "OPTIONS", "DELETE"):
                assert stranger.request(method, path).status_code == 401, (method, path)
        for wrong in ("", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer", f"bearer {KEY}"):
            refused = stranger.get("/v1/models", headers={"Authorization": wrong})
            assert refused.status_code == 401
            assert KEY not in refused.text
        assert stranger.get("/health").status_code == 200
    with served.openai(KEY) as client:
        assert client.models.list().data[0].id == NAME
    assert KEY not in repr(served.service.settings)


def test_a_full_queue_is_a_429_that_says_when_to_come_again(served: Served) -> None:
    async def storm() -> list[httpx.Response]:
        async with (
            httpx.AsyncClient(base_url=served.url, headers=served.http.headers, timeout=PATIENCE) as client,
            client.stream("POST", "/v1/completions", json={**LONG, "n": 3}) as busy,
        ):
            lines = busy.aiter_lines()
            await anext(lines)
            return [await client.post("/v1/completions", json={"prompt": "x"}) for _ in range(3)]

    for reply in asyncio.run(storm()):
        assert reply.status_code == 429
        assert int(reply.headers["Retry-After"]) >= 1
        assert reply.json()["error"]["type"] == "rate_limit_error"
    free, total = served.free_blocks()
    assert free == total
    assert served.http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200


def test_stopping_ends_a_running_stream_with_an_error_event(real_model_path: Path) -> None:
    with serving(real_model_path) as served:
        with served.http.stream("POST", "/v1/completions", json=LONG) as reply:
            lines = (line for line in reply.iter_lines() if line)
            next(lines)
            served.server.should_exit = True
            *_, error, done = lines
        assert json.loads(error.removeprefix("data: "))["error"]["type"] == "service_unavailable_error"
        assert done == "data: [DONE]"


def test_when_the_engine_fails_every_request_is_told_and_health_says_so(
    real_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(real_model_path) as served:
        with served.http.stream("POST", "/v1/completions", json=LONG) as reply:
            lines = (line for line in reply.iter_lines() if line)
            next(lines)

            def broken() -> None:
                raise MemoryError("no more")

            monkeypatch.setattr(served.llm.engine, "step", broken)
            *_, error, done = lines
        assert json.loads(error.removeprefix("data: "))["error"]["type"] == "service_unavailable_error"
        assert done == "data: [DONE]"
        for path in ("/health", "/ready"):
            assert served.http.get(path).status_code == 503
        refused = served.http.post("/v1/completions", json={"prompt": "x"})
        assert refused.status_code == 503
        assert "no more" not in refused.text


def test_a_reader_that_takes_nothing_is_dropped() -> None:
    closed = []

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            closed.append(True)

    async def never_leaves() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    sent = []

    async def takes_three(message: Message) -> None:
        sent.append(message)
        if len(sent) == 3:
            await asyncio.Event().wait()

    async def answer() -> None:
        stream = frames()
        reply = EventStream(await anext(stream), stream, stall_seconds=0.05)
        await asyncio.wait_for(reply({"type": "http"}, never_leaves, takes_three), PATIENCE)

    asyncio.run(answer())
    assert closed == [True]
    assert len(sent) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_cleanly_when_told(real_model_path: Path, number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-c",
        MAIN,
        "serve",
        str(real_model_path),
        "--port",
        "0",
        "-c",
        "512",
        "-t",
        "1",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split(" at ")[-1].strip()
        with httpx.stream("POST", f"{address}/v1/completions", json={**LONG, "max_tokens": 4}) as reply:
            assert reply.read().endswith(b"data: [DONE]\n\n")
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [("port", 70000), ("api_key", ""), ("api_key", "grüße"), ("max_queue", -1), ("served_model_name", "")],
)
def test_bad_settings_are_named(field: str, value: object) -> None:
    chosen: dict[str, object] = {"served_model_name": NAME, field: value}
    with pytest.raises(ConfigError, match=field):
        ServerSettings(**chosen)  # type: ignore[arg-type]  # that is the point
