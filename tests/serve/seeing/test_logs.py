"""One event is one line that says what happened, whatever a client sends, and nothing that it should not."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import re
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.outputs import StreamOutput
from pelton.serve.http.keys import TenantKey
from pelton.serve.seeing.logs import LONGEST_VALUE, Format, JsonLines, TextLines, logging_to
from pelton.serve.seeing.record import RequestRecord

from ..dribble import connected
from ..serving import NAME, PATIENCE, Served, serving

SECRET = "a word that only the prompt has"
KEY = "sk-never-shown"
NASTY = [
    "\r\nFORGED", "\nFORGED", "\x1b[2J\x1b]0;FORGED\x07", "\u2028FORGED\u2029", "\x85FORGED", "\0FORGED",
    '"}\n{"event": "FORGED', "\x0b\x0c\x1c\x1d\x1e", "\u202eFORGED", "\ud800", "a" * (1 << 20), "\\n", "%s%n",
]  # fmt: skip
FORMATTERS = {"json": JsonLines(), "text": TextLines()}
ADDRESS = re.compile(r"0x[0-9a-f]{8,}")


def event_of(message: str, request: RequestRecord | None = None) -> logging.LogRecord:
    event = logging.LogRecord(message[:5000] or "x", logging.INFO, "", 0, "%s", (message,), None)
    event.__dict__["request"] = request
    return event


def record_with(value: str) -> RequestRecord:
    """A record with the same in every text field."""
    record = RequestRecord(value, value, value, None, value, value, value, value)
    record.finish_reasons = [value]
    return record


def is_one_plain_line(line: str) -> bool:
    return len(line.splitlines()) == 1 and line.isascii() and line.isprintable()


@pytest.mark.parametrize("form", FORMATTERS)
@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value)[:16])
def test_no_value_forges_a_line(form: str, value: str) -> None:
    line = FORMATTERS[form].format(event_of(value, record_with(value)))
    assert is_one_plain_line(line)
    assert len(line) < 16 * LONGEST_VALUE
    if form == "json":
        fields = json.loads(line)
        assert fields["event"] in (value.rstrip(), fields["event"])
        assert fields["level"] == "INFO"
        assert "FORGED" not in fields


@given(st.text())
def test_json_lines_say_what_there_was(value: str) -> None:
    line = JsonLines().format(event_of("x", record_with(value)))
    assert is_one_plain_line(line)
    fields = json.loads(line)
    for name in ("id", "tenant", "method", "path", "route"):
        assert fields[name] == value[:LONGEST_VALUE] or len(value) > LONGEST_VALUE


@given(st.text())
def test_text_lines_are_one_line(value: str) -> None:
    assert is_one_plain_line(TextLines().format(event_of(value, record_with(value))))


def test_faults_are_told_by_type_and_place_alone() -> None:
    def deep() -> None:
        raise ValueError(SECRET)

    try:
        try:
            deep()
        except ValueError as inner:
            raise KeyError(SECRET) from inner
    except KeyError as error:
        event = event_of("it failed")
        event.exc_info = (KeyError, error, error.__traceback__)
    fields = json.loads(JsonLines().format(event))
    assert fields["fault"] == "KeyError from ValueError"
    assert re.search(r"test_logs\.py:\d+ test_faults", fields["at"])
    assert SECRET not in str(fields)
    assert "/" not in fields["at"]


def test_of_what_asyncio_says_only_the_first_line_is_told() -> None:
    """asyncio writes the message of an exception that nobody took, which may quote a request."""

    async def fails() -> None:
        raise ValueError(SECRET)

    async def leave_it() -> None:
        task = asyncio.create_task(fails())
        await asyncio.wait({task})
        del task
        gc.collect()

    stream = io.StringIO()
    with logging_to(stream, "json"):
        asyncio.run(leave_it())
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert (fields["event"], fields["fault"]) == ("Task exception was never retrieved", "ValueError")
    assert SECRET not in line


def test_a_stuck_reader_of_the_log_holds_nobody_up() -> None:
    stuck = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            stuck.wait(PATIENCE)
            return len(text)

    with logging_to(Stuck(), "json") as lines:
        for _ in range(10_050):
            logging.getLogger("pelton.serve").info("hello")
        assert lines.dropped >= 40
        stuck.set()


class Log(io.StringIO):
    """Log lines as they come."""

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    stream = Log()
    with logging_to(stream, "json"):
        yield stream


@pytest.fixture(scope="module")
def served(tiny_path: Path, log: Log) -> Iterator[Served]:
    keys = (TenantKey("ann", KEY),)
    with serving(tiny_path, api_key="sk-other", tenant_keys=keys, request_timeout=PATIENCE) as served:
        served.http.headers["Authorization"] = f"Bearer {KEY}"
        yield served


@pytest.mark.parametrize("stream", [False, True])
def test_each_request_is_one_line_that_says_who_what_and_how_much(
    served: Served, log: Log, stream: bool
) -> None:
    body = {"prompt": SECRET, "max_tokens": 5, "ignore_eos": True, "n": 2}
    reply = served.http.post(
        "/v1/completions", json={**body, "stream": stream}, headers={"X-Request-Id": f"id-{stream}"}
    )
    assert reply.status_code == 200
    assert served.until(lambda: any(e.get("id") == f"id-{stream}" for e in log.events()))
    (event,) = (event for event in log.events() if event.get("id") == f"id-{stream}")
    assert event["event"] == "request"
    assert event["tenant"] == "ann"
    assert (event["method"], event["route"], event["status"]) == ("POST", "/v1/completions", 200)
    assert event["prompt_tokens"] == len(served.service.prompts.tokenizer.encode(SECRET))
    assert event["completion_tokens"] == 10
    assert event["finish_reasons"] == "length,length"
    assert 0 < event["ttft_ms"] <= event["ms"]
    served.http.get("/no/such/route")
    assert served.until(lambda: log.events()[-1].get("status") == 404)
    assert log.events()[-1]["route"] == ""


def test_what_clients_send_forges_nothing_and_prompts_and_keys_stay_out(served: Served, log: Log) -> None:
    before = len(log.events())
    paths = [f"/{'a' * 2000}", "/x%0d%0aFORGED", "/x%1b[2J", "/%E2%80%A8FORGED", "/%00", "/%22%7d%0a%7b"]
    for path in paths:
        assert served.http.get(path).status_code == 404
    for raw in (b"GET /\nFORGED HTTP/1.1\r\n\r\n", b"\0\r\n\r\n", b"GET / HTTP/1.1\r\nX: a\0\n\r\n\r\n"):
        with connected(served.url) as client, suppress(ConnectionError, socket.timeout):
            client.setblocking(True)
            client.settimeout(0.2)
            client.sendall(raw)
            client.recv(1000)
    for wrong in ("a\tFORGED", "x" * 5000):
        served.http.get("/health", headers={"X-Request-Id": wrong, "Authorization": f"Bearer {wrong}{KEY}"})
    served.http.post("/v1/completions", json={"prompt": SECRET, "temperature": SECRET})
    served.http.post("/v1/completions", json={"prompt": SECRET, "model": f"\n{SECRET}"})
    assert served.until(lambda: len(log.events()) >= before + len(paths) + 4)
    for line in log.getvalue().splitlines():
        assert is_one_plain_line(line)
        assert len(line) < 16 * LONGEST_VALUE
        assert json.loads(line)["logger"].partition(".")[0] in ("pelton", "uvicorn")
    assert KEY not in log.getvalue()
    assert SECRET not in log.getvalue()


def test_a_fault_inside_shows_nothing_of_the_inside(
    served: Served, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*given: object) -> AsyncGenerator[StreamOutput, None]:
        if given:
            raise OSError(f"/etc/secret at {object()!r} of {SECRET}")
        yield StreamOutput(0, "", ())

    monkeypatch.setattr(served.service.client, "stream", broken)
    message = {"role": "user", "content": SECRET}
    replies = [
        served.http.post("/v1/completions", json={"prompt": SECRET}),
        served.http.post("/v1/chat/completions", json={"messages": [message]}),
        served.http.post("/v1/messages", json={"messages": [message], "max_tokens": 5, "model": NAME}),
    ]
    monkeypatch.undo()
    assert [reply.status_code for reply in replies] == [500, 500, 500]
    for wrong in ({"prompt": 5}, {"prompt": "x", "stop": [SECRET] * 99}, {"prompt": "x", "n": 10**9}):
        replies.append(served.http.post("/v1/completions", json=wrong))
    replies += [served.http.get(path) for path in ("/nowhere", "/health", "/ready", "/metrics", "/v1/models")]
    replies.append(httpx.get(f"{served.url}/v1/models", headers={"x-api-key": "sk-wrong"}))
    for reply in replies:
        assert not ADDRESS.search(reply.text)
        for inside in ("Traceback", ".py", "/etc", "/tmp", "site-packages", KEY, "sk-other", SECRET):
            assert inside not in reply.text, reply.text
    assert SECRET not in log.getvalue()
    assert any("OSError" in event.get("fault", "") for event in log.events())


@pytest.mark.parametrize("form", ["json", "text"])
def test_requests_can_be_left_out_of_the_log(form: Format) -> None:
    stream = io.StringIO()
    with logging_to(stream, form, access=False):
        logging.getLogger("pelton.access").info("request")
        logging.getLogger("pelton.serve").info("other")
    assert len(stream.getvalue().splitlines()) == 1
