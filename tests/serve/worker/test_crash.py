"""The engine's process dies in every way there is: streams are told, another serves, the server stays."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ..serving import PATIENCE, Served, serving
from . import faulty_worker as faults

STALL_SECONDS = 3.0
TINY = {"prompt": "hello world", "max_tokens": 40, "ignore_eos": True, "seed": 1}
LONG = {"prompt": [faults.SLOW, 1], "max_tokens": 1000, "ignore_eos": True, "seed": 1}


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(
        tiny_path, command=faults.faulty_command, stall_seconds=STALL_SECONDS, max_num_seqs=8
    ) as served:
        yield served


def canary(served: Served) -> str:
    """A text that must never change."""
    body = {"prompt": "the user", "max_tokens": 24, "ignore_eos": True, "seed": 9}
    reply = served.http.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["text"]
    return text


@pytest.fixture(autouse=True)
def _serves_as_before(served: Served) -> Iterator[None]:
    before = canary(served)
    yield
    assert canary(served) == before
    free, total = served.free_blocks()
    assert free == total
    assert served.service.gate.under_way == 0
    assert served.http.get("/health").status_code == 200


def poison(fault: int, position: int, **fields: Any) -> dict[str, Any]:
    """A request whose step fails that computes `position`; its first token comes of position 1."""
    return {"prompt": [fault, position], "max_tokens": 60, "ignore_eos": True, "seed": 2, **fields}


def stream(served: Served, body: dict[str, Any], begun: threading.Event | None = None) -> list[str]:
    """The data of all events of a stream."""
    events = []
    with served.http.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
        assert reply.status_code == 200, reply.read()
        for line in reply.iter_lines():
            if line:
                events.append(line.removeprefix("data: "))
                if begun is not None:
                    begun.set()
    return events


def begin(pool: ThreadPoolExecutor, served: Served, body: dict[str, Any]) -> Future[list[str]]:
    """A stream that has given something already."""
    begun = threading.Event()
    future = pool.submit(stream, served, body, begun)
    assert begun.wait(PATIENCE)
    return future


def assert_told(events: list[str]) -> None:
    *pieces, error, done = events
    assert pieces
    assert json.loads(error)["error"]["type"] == "service_unavailable_error"
    assert done == "[DONE]"


@pytest.mark.parametrize("fault", [faults.KILL, faults.SEGV, faults.BUS, faults.EXIT, faults.RAISE])
def test_a_crash_under_streams_ends_each_with_an_error_event(served: Served, fault: int) -> None:
    restarts = served.engine.restarts
    with ThreadPoolExecutor(4) as pool:
        running = [begin(pool, served, LONG) for _ in range(3)]
        running.append(begin(pool, served, poison(fault, 8)))
        for future in running:
            assert_told(future.result(PATIENCE))
    canary(served)
    assert served.engine.restarts == restarts + 1


def test_a_process_that_hangs_is_killed(served: Served) -> None:
    restarts = served.engine.restarts
    with ThreadPoolExecutor(2) as pool:
        running = [begin(pool, served, LONG), begin(pool, served, poison(faults.HANG, 8))]
        for future in running:
            assert_told(future.result(PATIENCE))
    canary(served)
    assert served.engine.restarts == restarts + 1


def test_a_request_that_had_given_nothing_goes_to_the_next_process(served: Served) -> None:
    with ThreadPoolExecutor(3) as pool:
        running = [begin(pool, served, LONG) for _ in range(2)]
        os.kill(served.engine.pid, signal.SIGSTOP)
        waiting = pool.submit(canary, served)
        assert served.until(lambda: served.service.gate.under_way == 3)
        os.kill(served.engine.pid, signal.SIGKILL)
        for future in running:
            assert_told(future.result(PATIENCE))
        assert waiting.result(PATIENCE) == canary(served)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_request_that_crashes_two_processes_is_given_up(served: Served, is_streamed: bool) -> None:
    restarts = served.engine.restarts
    reply = served.http.post("/v1/completions", json=poison(faults.SEGV, 1, stream=is_streamed))
    assert reply.status_code == 503
    assert int(reply.headers["Retry-After"]) >= 1
    error = reply.json()["error"]
    assert error["type"] == "service_unavailable_error"
    assert "process" in error["message"]
    canary(served)
    assert served.engine.restarts == restarts + 2
    figures = text_string_to_metric_families(served.http.get("/metrics").text)
    assert {f"{prefix}:engine_restarts": [restarts + 2.0] for prefix in ("pelton", "vllm")} == {
        family.name: [sample.value for sample in family.samples]
        for family in figures
        if family.name.endswith(":engine_restarts")
    }


def test_logits_that_are_not_numbers_end_that_request_alone(served: Served) -> None:
    alone = stream(served, TINY)
    restarts = served.engine.restarts
    with ThreadPoolExecutor(2) as pool:
        neighbour = pool.submit(stream, served, TINY)
        *pieces, error, done = stream(served, poison(faults.NAN, 40))
        assert text_of(neighbour.result(PATIENCE)) == text_of(alone)
    assert pieces
    assert "not finite" in json.loads(error)["error"]["message"]
    assert done == "[DONE]"
    whole = served.http.post("/v1/completions", json=poison(faults.NAN, 1))
    assert whole.status_code == 500
    assert "not finite" in whole.json()["error"]["message"]
    assert "pelton:not_finite_logits_total" in served.http.get("/metrics").text
    assert served.engine.restarts == restarts


def text_of(events: list[str]) -> str:
    return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])
