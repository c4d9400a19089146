"""How a server ends: by itself, when told, and when told twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from ..serving import MAIN, serving

LONG = {"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": True, "stream": True}


def test_stopping_ends_a_running_stream_with_an_error_event(real_model_path: Path) -> None:
    with serving(real_model_path) as served:
        with served.http.stream("POST", "/v1/completions", json=LONG) as reply:
            lines = (line for line in reply.iter_lines() if line)
            next(lines)
            served.server.should_exit = True
            *_, error, done = lines
        assert json.loads(error.removeprefix("data: "))["error"]["type"] == "service_unavailable_error"
        assert done == "data: [DONE]"


def test_a_second_signal_ends_the_patience(real_model_path: Path) -> None:
    with serving(real_model_path, grace_seconds=3600.0) as served:
        with served.http.stream("POST", "/v1/completions", json=LONG) as reply:
            lines = (line for line in reply.iter_lines() if line)
            next(lines)
            for _ in range(2):
                served.server.handle_exit(signal.SIGINT, None)
            *_, error, done = lines
        assert json.loads(error.removeprefix("data: "))["error"]["type"] == "service_unavailable_error"
        assert done == "data: [DONE]"


def command(model: Path) -> list[str]:
    """What a user types, with the page."""
    return [sys.executable, "-c", MAIN, "serve", str(model), "--port", "0", "-c", "512", "-t", "1"]


def test_two_times_ctrl_c_ends_the_command_without_a_traceback(real_model_path: Path) -> None:
    words = [*command(real_model_path), "--no-access-log"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split(" at ")[-1].strip()
        with httpx.stream(
            "POST", f"{address}/v1/completions", json={**LONG, "max_tokens": 400, "n": 16}
        ) as reply:
            lines = (line for line in reply.iter_lines() if line)
            next(lines)
            process.send_signal(signal.SIGINT)
            with suppress(httpx.ConnectError):  # nobody comes in any more: it has begun to end
                while True:
                    httpx.get(f"{address}/ready")
            process.send_signal(signal.SIGINT)
            *_, done = lines
        assert done == "data: [DONE]"
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_cleanly_when_told(real_model_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        command(real_model_path), stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split(" at ")[-1].strip()
        with httpx.stream("POST", f"{address}/v1/completions", json={**LONG, "max_tokens": 4}) as reply:
            assert reply.read().endswith(b"data: [DONE]\n\n")
        process.send_signal(number)
        assert process.wait(10) == 0
        (line,) = process.stderr.read().splitlines()
        assert " INFO pelton.access request " in line
        assert "status=200" in line
