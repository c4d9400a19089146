"""Slow clients at the numbers of reliability.md 4 and 5: `pytest -m load`."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

import httpx
import psutil
import pytest

from ..dribble import HEAD, connected, is_closed, post, send_byte
from ..limits import with_slack
from ..probe import p99, probing
from ..serving import running_command
from ..sse import ask

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
OTHER_TOKENS = 200
OTHER = {"prompt": "the user", "max_tokens": OTHER_TOKENS, "ignore_eos": True, "seed": 9}
WINDOW = 10.0


async def speed(url: str, seconds: float) -> float:
    """Tokens a second that four streams at once get, one after another."""
    end = monotonic() + seconds

    async def streams() -> int:
        tokens = 0
        while monotonic() < end:
            reply = await ask(url, OTHER)
            assert reply.is_told
            tokens += OTHER_TOKENS
        return tokens

    began = monotonic()
    tokens = await asyncio.gather(*(streams() for _ in range(4)))
    return sum(tokens) / (monotonic() - began)


async def until_computed(url: str) -> None:
    """Return once the engine has nothing to do, whoever has not read what it did."""
    async with httpx.AsyncClient(base_url=url) as client:
        while True:
            await asyncio.sleep(0.2)
            stats = (await client.get("/stats")).json()
            if not stats["running"] and not stats["waiting"]:
                return


async def read_slowly(clients: list[socket.socket], server: psutil.Process, peak: list[int]) -> list[float]:
    """A byte a second of each until the server has closed it; seconds that took."""
    open_, began, ends = {client.getsockname()[1] for client in clients}, monotonic(), list[float]()
    while open_ and monotonic() - began < STALL_SECONDS + 60:
        await asyncio.sleep(1.0)
        peak.append(server.memory_info().rss)
        for client in clients:
            is_closed(client)
        left = open_ & {each.raddr.port for each in server.net_connections("tcp") if each.raddr}
        ends += [monotonic() - began] * (len(open_) - len(left))
        open_ = left
    assert not open_
    return ends


@pytest.mark.speed
def test_slow_readers_cost_no_memory_and_hold_nobody_up(tiny_path: Path) -> None:
    with running_command(tiny_path, "-np", "80") as (process, url, _), ExitStack() as stack:
        server = psutil.Process(process.pid)

        async def run() -> tuple[float, float, int, list[float]]:
            await asyncio.gather(*(ask(url, SLOW) for _ in range(READERS)))  # warm
            before, peak = server.memory_info().rss, list[int]()
            alone = await speed(url, WINDOW)
            clients = [stack.enter_context(connected(url, receive_buffer=4096)) for _ in range(READERS)]
            for client in clients:
                post(client, SLOW)
            reading = asyncio.create_task(read_slowly(clients, server, peak))
            await until_computed(url)
            beside = await speed(url, WINDOW)
            ends = await reading
            return alone, beside, max(peak) - before, ends

        alone, beside, growth, ends = asyncio.run(run())
        print(
            f"\nothers: {alone:.0f} tokens/s alone, {beside:.0f} beside {READERS} slow readers;"
            f" +{growth >> 10} KiB; closed after {min(ends):.0f} to {max(ends):.0f} s"
        )
        assert growth <= MOST_GROWTH
        assert beside >= LEAST_SHARE * alone
        assert STALL_SECONDS <= min(ends) <= max(ends) <= STALL_SECONDS + 30
        with httpx.Client(base_url=url) as client:
            assert "private" not in str(client.get("/stats").json()["kv"]["runs"])


BEGINNINGS = (b"", HEAD[:40], HEAD + b"Content-Length: 5000\r\n\r\n{", b"GET /v1/models HTTP/1.1\r\n")


@with_slack
def test_dribblers_are_gone_in_time_and_nobody_notices(tiny_path: Path, slack: float) -> None:
    with running_command(tiny_path) as (_, url, _), ExitStack() as stack:
        with probing(url) as took:
            began = monotonic()
            clients = [stack.enter_context(connected(url)) for _ in range(DRIBBLERS)]
            for number, client in enumerate(clients):
                client.sendall(BEGINNINGS[number % len(BEGINNINGS)])
            open_ = list(clients)
            while open_ and monotonic() - began < 60:
                sleep(1.0)
                open_ = [client for client in open_ if not is_closed(client)]
                for client in open_:
                    if client is not clients[0]:  # the silent stay silent
                        send_byte(client)
            gone = monotonic() - began
        print(f"all gone after {gone:.1f} s; /health p99 {p99(took) * 1e3:.1f} ms of {len(took)}")
        assert not open_
        assert gone <= DRIBBLERS_GONE_SECONDS
        assert p99(took) <= slack * HEALTH_SECONDS


@with_slack
def test_a_thousand_idle_connections_are_fine(tiny_path: Path, slack: float) -> None:
    with running_command(tiny_path) as (_, url, _), ExitStack() as stack:
        clients = [stack.enter_context(connected(url)) for _ in range(IDLE)]

        async def answers() -> None:
            for _ in range(15):
                assert (await ask(url, OTHER)).is_told
                await asyncio.sleep(1.0)

        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with probing(url) as took:
            asyncio.run(answers())
        print(f"/health p99 {p99(took) * 1e3:.1f} ms of {len(took)} beside {IDLE} idle connections")
        assert not any(is_closed(client, 4096) for client in clients)
        assert p99(took) <= slack * HEALTH_SECONDS
