"""A real server on a free port of 127.0.0.1: HTTP in a thread of the test's, the engine in a process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import OpenAI

from pelton.serve.answers.generation import Service
from pelton.serve.served import in_worker
from pelton.serve.server import Server, make_service
from pelton.serve.settings import ServerSettings
from pelton.serve.worker.process import WorkerCommand, worker_command
from pelton.serve.worker.supervisor import EngineProcess
from pelton.settings import EngineSettings
from pelton.weights.store import default_store

NAME = "smol"
CONTEXT = 1024
PATIENCE = 20.0
MAIN = "from pelton.cli.main import main; main()"


@dataclass(frozen=True)
class Served:
    """A running server, its engine's client, and clients for it."""

    engine: EngineProcess
    service: Service
    server: Server
    loop: asyncio.AbstractEventLoop
    url: str
    http: httpx.Client

    def openai(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)

    def until(self, holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Whether something comes to hold in time."""
        pause = threading.Event()
        for _ in range(int(seconds * 100)):
            if holds():
                return True
            pause.wait(0.01)
        return holds()

    def tasks(self) -> int:
        """Tasks of the server's event loop."""
        return len(asyncio.all_tasks(self.loop))

    def free_blocks(self) -> tuple[int, int]:
        """Free KV blocks and all of them, once the engine has nothing to do."""
        self.until(lambda: self._is_idle)
        load = self.engine.load()
        return load.kv_free, load.kv_blocks

    @property
    def _is_idle(self) -> bool:
        load = self.engine.load()
        return not (load.running or load.waiting or self.service.gate.under_way)


@contextmanager
def serving(
    model: Path | str,
    *,
    max_num_seqs: int = 32,
    kv_memory: int = 256 << 20,
    context: int = CONTEXT,
    command: WorkerCommand = worker_command,
    kv_cache_dir: Path | None = None,
    **settings: Any,
) -> Iterator[Served]:
    """Serve a model with these ServerSettings until the block ends."""
    chosen = ServerSettings(**{"served_model_name": NAME, "port": 0, "grace_seconds": 0.0, **settings})
    folder = None if kv_cache_dir is None else str(kv_cache_dir)
    engine = EngineSettings(
        threads=1,
        context_length=context,
        max_num_seqs=max_num_seqs,
        kv_memory=kv_memory,
        kv_cache_dir=folder,
    )
    loaded = in_worker(
        default_store().resolve(str(model)), engine, stall_seconds=chosen.stall_seconds, command=command
    )
    client = loaded.client
    assert isinstance(client, EngineProcess)
    try:
        service = make_service(loaded, chosen)
        with running(service) as started, httpx.Client(base_url=started.url, timeout=PATIENCE) as http:
            yield Served(client, service, started.server, started.loop, started.url, http)
    finally:
        client.kill()


@dataclass(frozen=True)
class Started:
    """A server that listens at `url`; its event loop runs in another thread."""

    server: Server
    loop: asyncio.AbstractEventLoop
    url: str


@contextmanager
def running(service: Service) -> Iterator[Started]:
    """Run a server in a thread until the block ends."""
    begun = threading.Event()
    found: list[Started] = []

    def on_start(address: str) -> None:
        found.append(Started(server, asyncio.get_running_loop(), address))
        begun.set()

    server = Server(service, on_start)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert begun.wait(PATIENCE)
        yield found[0]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


@contextmanager
def running_command(model: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str, psutil.Process]]:
    """`pelton serve`, its address, and its engine's process."""
    quiet = ("--port", "0", "-t", "1", "--no-access-log", "--no-page")
    words = [sys.executable, "-c", MAIN, "serve", str(model), *quiet, *flags]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().split(" at ")[-1].strip()
            (engine,) = psutil.Process(process.pid).children()
            yield process, address, engine
        finally:
            process.kill()
