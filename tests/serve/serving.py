"""A real server on a free port of 127.0.0.1, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from pelton import LLM
from pelton.serve.generation import Service
from pelton.serve.server import Server, make_service
from pelton.serve.settings import ServerSettings

NAME = "smol"
CONTEXT = 1024
PATIENCE = 20.0


@dataclass(frozen=True)
class Served:
    """A running server, its engine, and clients for it."""

    llm: LLM
    service: Service
    server: Server
    url: str
    http: httpx.Client

    def openai(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)

    def free_blocks(self) -> tuple[int, int]:
        """Free KV blocks and all of them, once the engine has nothing to do."""
        engine = self.llm.engine
        done = threading.Event()
        for _ in range(int(PATIENCE * 100)):
            if not engine.has_work:
                break
            done.wait(0.01)
        engine.check()
        return engine.pool.num_free, engine.pool.num_blocks


@contextmanager
def serving(
    model: Path, *, max_num_seqs: int = 32, kv_memory: int = 256 << 20, **settings: Any
) -> Iterator[Served]:
    """Serve a model with these ServerSettings until the block ends."""
    llm = LLM(str(model), context_length=CONTEXT, threads=1, max_num_seqs=max_num_seqs, kv_memory=kv_memory)
    chosen = ServerSettings(**{"served_model_name": NAME, "port": 0, "grace_seconds": 0.0, **settings})
    service = make_service(llm, chosen)
    started = threading.Event()
    addresses: list[str] = []

    def on_start(address: str) -> None:
        addresses.append(address)
        started.set()

    server = Server(service, on_start)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(PATIENCE)
        with httpx.Client(base_url=addresses[0], timeout=PATIENCE) as http:
            yield Served(llm, service, server, addresses[0], http)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()
