"""Who outlives whom: `pelton serve` and its engine's process under signals, and a model file that changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from time import monotonic

import httpx
import psutil
import pytest

from pelton import LLM
from pelton.serve.server import make_service
from pelton.serve.settings import ServerSettings

from .serving import CONTEXT, MAIN, NAME, PATIENCE, Served, running, running_command, serving

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


def test_a_server_that_is_killed_leaves_no_process_behind(tiny_path: Path) -> None:
    with (
        running_command(tiny_path) as (process, address, engine),
        httpx.stream("POST", f"{address}/v1/completions", json=LONG) as reply,
    ):
        next(reply.iter_lines())
        process.kill()
        assert is_gone(engine, 1.0)


def test_sigterm_tells_every_stream_though_the_engine_hangs(tiny_path: Path) -> None:
    with running_command(tiny_path) as (process, address, engine):
        with httpx.stream("POST", f"{address}/v1/completions", json=LONG) as reply:
            lines = (line.removeprefix("data: ") for line in reply.iter_lines() if line)
            next(lines)
            engine.suspend()
            process.send_signal(signal.SIGTERM)
            *_, error, done = lines
        assert json.loads(error)["error"]["type"] == "service_unavailable_error"
        assert done == "[DONE]"
        assert process.wait(10) == 0
        assert is_gone(engine, 0.1)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_the_engine_stays_when_all_processes_get_the_signal(tiny_path: Path) -> None:
    with running_command(tiny_path) as (process, address, engine):
        engine.send_signal(signal.SIGTERM)
        engine.send_signal(signal.SIGINT)
        reply = httpx.post(f"{address}/v1/completions", json=ASK)
        assert reply.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


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


@pytest.mark.parametrize("kind", ["missing", "cut"])
def test_a_model_that_cannot_be_loaded_says_why_and_leaves_nothing(
    tiny_path: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "model.gguf"
    if kind == "cut":
        path.write_bytes(tiny_path.read_bytes()[:5000])
    words = [sys.executable, "-c", MAIN, "serve", str(path), "--port", "0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0
    assert done.stderr.startswith("pelton: error: ")
    assert str(path) in done.stderr
    assert len(done.stderr.splitlines()) == 1
