"""Slow clients at the numbers of reliability.md 4 and 5: `pytest -m load`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import psutil
import pytest

from .dribble import HEAD, connected, is_closed, post, send_byte
from .serving import running_command
from .sse import ask

pytestmark = pytest.mark.load
READERS = 64
DRIBBLERS = 500
IDLE = 1000
MOST_GROWTH = 32 << 20
LEAST_SHARE = 0.9
DRIBBLERS_GONE_SECONDS = 20.0
HEALTH_SECONDS = 0.1
STALL_SECONDS = 60.0
SLOW = {"prompt": "a", "max_tokens": 1000, "ignore_eos": True, "stream": True}
OTHER = {"prompt": "the user", "max_tokens": 200, "ignore_eos": True, "seed": 9}


async def others(url: str, stop: asyncio.Event) -> int:
    """Streams one after another until told to stop; the tokens they got."""
    tokens = 0
    while not stop.is_set():
        reply = await ask(url, OTHER)
        assert reply.status == 200
        tokens += int(OTHER["max_tokens"])  # type: ignore[call-overload]
    return tokens


async def speed_beside(url: str, work: asyncio.Task[None]) -> float:
    """Tokens a second of four others for as long as some work goes on."""
    stop, began = asyncio.Event(), monotonic()
    running = [asyncio.create_task(others(url, stop)) for _ in range(4)]
    await work
    stop.set()
    return sum([await each for each in running]) / (monotonic() - began)


async def read_all(url: str) -> None:
    replies = await asyncio.gather(*(ask(url, SLOW) for _ in range(READERS)))
    assert all(reply.is_told for reply in replies)


async def read_slowly(clients: list[socket.socket], server: psutil.Process, peak: list[int]) -> None:
    """A byte a second of each until the server has closed it."""
    for client in clients:
        post(client, SLOW)
    open_, began = list(clients), monotonic()
    while open_ and monotonic() - began < STALL_SECONDS + 60:
        await asyncio.sleep(1.0)
        peak.append(server.memory_info().rss)
        open_ = [client for client in open_ if not is_closed(client)]
    assert not open_


def test_slow_readers_cost_no_memory_and_hold_nobody_up(tiny_path: Path) -> None:
    with running_command(tiny_path, "-np", "80") as (process, url, _), ExitStack() as stack:
        server = psutil.Process(process.pid)

        async def run() -> tuple[float, float, int]:
            await read_all(url)  # warm
            alone = await speed_beside(url, asyncio.create_task(read_all(url)))
            before, peak = server.memory_info().rss, list[int]()
            clients = [stack.enter_context(connected(url, receive_buffer=4096)) for _ in range(READERS)]
            began = monotonic()
            slowly = asyncio.create_task(read_slowly(clients, server, peak))
            beside = await speed_beside(url, slowly)
            assert monotonic() - began > STALL_SECONDS - 5
            return alone, beside, max(peak) - before

        alone, beside, growth = asyncio.run(run())
        print(
            f"others: {alone:.0f} tokens/s beside fast readers, {beside:.0f} beside slow; +{growth >> 10} KiB"
        )
        assert growth <= MOST_GROWTH
        assert beside >= LEAST_SHARE * alone
        assert psutil.Process(process.pid).num_fds() < 60


@asynccontextmanager
async def probing(url: str) -> AsyncIterator[list[float]]:
    """Ask for /health all the time; how long each answer took."""
    parts = urlsplit(url)
    took: list[float] = []

    async def probe() -> None:
        while True:
            began = monotonic()
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            took.append(monotonic() - began)
            writer.close()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(probe())
    try:
        yield took
    finally:
        assert not task.done() or task.exception() is None
        task.cancel()


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


BEGINNINGS = (b"", HEAD[:40], HEAD + b"Content-Length: 5000\r\n\r\n{", b"GET /v1/models HTTP/1.1\r\n")


def test_dribblers_are_gone_in_time_and_nobody_notices(tiny_path: Path) -> None:
    with running_command(tiny_path) as (_, url, _), ExitStack() as stack:

        async def run() -> tuple[float, list[float]]:
            async with probing(url) as took:
                began = monotonic()
                clients = [stack.enter_context(connected(url)) for _ in range(DRIBBLERS)]
                for number, client in enumerate(clients):
                    client.sendall(BEGINNINGS[number % len(BEGINNINGS)])
                open_ = list(clients)
                while open_ and monotonic() - began < 60:
                    await asyncio.sleep(1.0)
                    open_ = [client for client in open_ if not is_closed(client)]
                    for client in open_:
                        if client is not clients[0]:  # the silent stay silent
                            send_byte(client)
                return monotonic() - began, took

        gone, took = asyncio.run(run())
        print(f"all gone after {gone:.1f} s; /health p99 {p99(took) * 1e3:.1f} ms of {len(took)}")
        assert gone <= DRIBBLERS_GONE_SECONDS
        assert p99(took) <= HEALTH_SECONDS


def test_a_thousand_idle_connections_are_fine(tiny_path: Path) -> None:
    with running_command(tiny_path) as (_, url, _), ExitStack() as stack:
        clients = [stack.enter_context(connected(url)) for _ in range(IDLE)]

        async def run() -> list[float]:
            for client in clients:
                client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with probing(url) as took:
                for _ in range(15):
                    assert (await ask(url, OTHER)).is_told
                    await asyncio.sleep(1.0)
            return took

        took = asyncio.run(run())
        print(f"/health p99 {p99(took) * 1e3:.1f} ms of {len(took)} beside {IDLE} idle connections")
        assert not any(is_closed(client, 4096) for client in clients)
        assert p99(took) <= HEALTH_SECONDS
