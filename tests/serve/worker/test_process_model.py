"""Who outlives whom: a server and its engine's process under signals, and a model file that changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from threading import Event
from time import monotonic

import httpx
import psutil
import pytest

from pelton import LLM
from pelton.errors import ModelFileError
from pelton.serve.served import in_worker
from pelton.serve.server import make_service
from pelton.serve.settings import ServerSettings
from pelton.settings import EngineSettings
from pelton.weights.store import ResolvedModel

from ..serving import CONTEXT, NAME, PATIENCE, Served, running, running_command, serving
from . import faulty_worker as faults

ASK = {"prompt": "the user", "max_tokens": 24, "ignore_eos": True, "seed": 9}
LONG = {"prompt": "hello world", "max_tokens": 1000, "ignore_eos": True, "stream": True, "seed": 1}


def is_gone(process: psutil.Process, seconds: float) -> bool:
    """Whether a process that is nobody's child here ends in time."""
    pause, end = Event(), monotonic() + seconds
    while monotonic() < end:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        pause.wait(0.01)
    return False


def test_the_engine_leaves_with_its_server_and_not_before(tiny_path: Path) -> None:
    with running_command(tiny_path) as (process, address, engine):
        engine.send_signal(signal.SIGTERM)  # as a service manager does to every process of a service
        engine.send_signal(signal.SIGINT)
        assert httpx.post(f"{address}/v1/completions", json=ASK, timeout=PATIENCE).status_code == 200
        with httpx.stream("POST", f"{address}/v1/completions", json=LONG, timeout=PATIENCE) as reply:
            next(reply.iter_lines())
            process.kill()
            assert is_gone(engine, 1.0)


def test_a_server_that_stops_tells_every_stream_though_the_engine_hangs(tiny_path: Path) -> None:
    with serving(tiny_path, command=faults.faulty_command) as served:
        engine = psutil.Process(served.engine.pid)
        slow = {**LONG, "prompt": [faults.SLOW, 1]}
        with served.http.stream("POST", "/v1/completions", json=slow) as reply:
            lines = (line.removeprefix("data: ") for line in reply.iter_lines() if line)
            next(lines)
            engine.suspend()
            served.server.should_exit = True
            *_, error, done = lines
        assert json.loads(error)["error"]["type"] == "service_unavailable_error"
        assert done == "[DONE]"
        assert served.until(lambda: not engine.is_running())


def ask(served: Served) -> httpx.Response:
    return served.http.post("/v1/completions", json=ASK)


def test_a_model_file_cut_short_ends_the_engine_at_most(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    shutil.copy(tiny_path, path)
    with serving(path) as served:
        text = ask(served).json()["choices"][0]["text"]
        os.truncate(path, 1 << 12)
        reply = ask(served)  # what is mapped may be gone; what was copied is not
        assert reply.status_code == 503 or reply.json()["choices"][0]["text"] == text
        os.kill(served.engine.pid, signal.SIGKILL)
        assert served.until(lambda: served.http.get("/health").status_code == 503)
        assert served.http.get("/ready").status_code == 503
        assert served.until(lambda: ask(served).headers.get("Retry-After") is not None)
        assert str(path) not in ask(served).text
        shutil.copy(tiny_path, tmp_path / "whole")
        os.replace(tmp_path / "whole", path)
        assert served.until(lambda: served.http.get("/health").status_code == 200)
        assert ask(served).json()["choices"][0]["text"] == text


def test_a_model_that_cannot_be_loaded_says_why_and_leaves_no_process(
    tiny_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_path.read_bytes()[:5000])
    before = psutil.Process().children()
    with pytest.raises(ModelFileError, match=r"model\.gguf"):
        in_worker(ResolvedModel(str(path), path, "gguf", verified=False), EngineSettings(threads=1))
    assert psutil.Process().children() == before


def test_a_reader_that_takes_nothing_holds_nobody_up(tiny_path: Path) -> None:
    with serving(tiny_path) as served, httpx.Client(base_url=served.url, timeout=PATIENCE) as other:
        text = ask(served).json()["choices"][0]["text"]
        with other.stream("POST", "/v1/completions", json={**LONG, "n": 8}) as reply:
            assert reply.status_code == 200
            for _ in range(3):
                assert ask(served).json()["choices"][0]["text"] == text
            lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
        reasons = [json.loads(line)["choices"][0]["finish_reason"] for line in lines[:-1]]
        assert sorted(filter(None, reasons)) == ["length"] * 8


def test_an_engine_of_the_same_process_serves_the_same_text(tiny_path: Path) -> None:
    with serving(tiny_path) as served:
        text = ask(served).json()["choices"][0]["text"]
    llm = LLM(str(tiny_path), context_length=CONTEXT, threads=1)
    service = make_service(llm, ServerSettings(served_model_name=NAME, port=0))
    with running(service) as started:
        reply = httpx.post(f"{started.url}/v1/completions", json=ASK, timeout=PATIENCE)
        assert reply.json()["choices"][0]["text"] == text
        assert service.client.fault(60.0) is None
        assert service.client.restarts == 0
