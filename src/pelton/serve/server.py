"""The server process: uvicorn around the app, and an end in which every stream is told."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from ..errors import ConfigError
from ..llm import LLM
from .answers.generation import Service
from .answers.prompts import Prompts
from .app import make_app
from .http.admission import Gate
from .http.connections import LARGEST_HEADERS, Connection, ConnectionLimits, OpenConnections, allow_files
from .seeing.metrics import Metrics
from .served import ServedModel, in_process
from .settings import ServerSettings

CLOSE_SECONDS = 2.5
_LOOK_SECONDS = 0.1


def make_service(model: ServedModel | LLM, settings: ServerSettings) -> Service:
    """A service over an engine, which belongs to it from now on."""
    if isinstance(model, LLM):
        model = in_process(model)
    client, prompts = model.client, Prompts(model.tokenizer, model.template, settings.tool_call_parser)
    metrics = Metrics(settings.served_model_name, client.load, lambda: client.restarts)
    gate = Gate(
        client.facts.max_num_seqs,
        settings.max_queue,
        metrics.refused.inc,
        tenants=settings.tenants,
        most_per_tenant=settings.max_seqs_per_tenant,
    )
    return Service(settings, client, prompts, gate, metrics, model.grammars)


class Server(uvicorn.Server):
    """Stops in three moves, at most `grace_seconds` + 5 s in all: nobody comes in and running requests go
    on for the grace; then the engine ends, which ends every stream with an error event; then the sockets.
    A second Ctrl-C ends the grace."""

    def __init__(self, service: Service, started: Callable[[str], None] | None = None) -> None:
        settings = service.settings
        super().__init__(
            uvicorn.Config(
                make_app(service),
                host=settings.host,
                port=settings.port,
                http=Connection,
                h11_max_incomplete_event_size=LARGEST_HEADERS,
                ws="websockets-sansio" if settings.page else "none",
                lifespan="on" if settings.page else "off",
                proxy_headers=False,
                server_header=False,
                access_log=False,
                timeout_keep_alive=settings.keep_alive_seconds,
                log_config=None,
                timeout_graceful_shutdown=2,
            )
        )
        limits = ConnectionLimits(
            allow_files(settings.max_connections),
            settings.header_seconds,
            settings.body_seconds,
            settings.client_stall_seconds,
        )
        self.open = OpenConnections(limits, service.metrics.closed, service.metrics.connections.set)
        self.server_state = self.open
        self._service = service
        self._started = started
        self._watch: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where the server listens, such as http://127.0.0.1:8000; once it has started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._service.client.open()
        try:
            await super().startup(sockets=sockets)
        except SystemExit:  # how uvicorn reports an address that it cannot listen at
            where = f"{self._service.settings.host}:{self._service.settings.port}"
            raise ConfigError(
                "cannot listen there; is it in use?", field="host and port", value=where
            ) from None
        self._watch = asyncio.create_task(self.open.watch())
        if self._started is not None and self.started:
            self._started(self.address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        drained = asyncio.ensure_future(self._service.gate.drain(self._service.settings.grace_seconds))
        while not drained.done() and not self.force_exit:  # which a signal's handler sets: nobody is told
            await asyncio.wait({drained}, timeout=_LOOK_SECONDS)
        drained.cancel()
        with suppress(asyncio.TimeoutError):  # a step that does not end dies with the process
            await asyncio.wait_for(self._service.client.close(), CLOSE_SECONDS)
        self._service.grammars.close()
        await super().shutdown(sockets=sockets)
        if self.force_exit:  # then uvicorn leaves this out, and it would be cancelled with a traceback
            await self.lifespan.shutdown()
        if self._watch is not None:
            self._watch.cancel()


def run_server(server: Server) -> None:
    """Serve until SIGTERM or SIGINT, then return. Only for the main thread."""

    def ignore(number: int, frame: FrameType | None) -> None:
        """uvicorn raises the signal that stopped it again afterwards; it did its work already."""

    before = {number: signal.signal(number, ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
