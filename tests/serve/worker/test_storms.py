"""Minutes of kills, disconnects and hundreds of streams: the numbers of a release. `pytest -m load`.

PELTON_LOAD_SECONDS (60), PELTON_LOAD_KILLS (200) and PELTON_LOAD_DROPS (500) say how much of each.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from ..limits import with_slack
from ..serving import Served, running_command, serving
from ..sse import Connection, Reply, ask
from . import faulty_worker as faults

pytestmark = pytest.mark.load
SECONDS = float(os.environ.get("PELTON_LOAD_SECONDS", "60"))
KILLS = int(os.environ.get("PELTON_LOAD_KILLS", "200"))
DROPS = int(os.environ.get("PELTON_LOAD_DROPS", "500"))
TOLD_SECONDS, SERVING_SECONDS, CANCEL_SECONDS, STOP_SECONDS = 1.0, 5.0, 0.25, 10.0
LONG = {"prompt": "hello world", "max_tokens": 1000, "ignore_eos": True, "seed": 1}
CANARY = {"prompt": "the user", "max_tokens": 24, "ignore_eos": True, "seed": 9}
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(
        tiny_path,
        command=faults.faulty_command,
        max_num_seqs=64,
        max_queue=1000,
        max_connections=2000,
    ) as served:
        yield served


async def begun(url: str, started: asyncio.Event) -> tuple[Reply, float]:
    """A long stream, and when it ended."""
    async with Connection(url, LONG) as connection:
        await connection.send()
        status = await connection.status()
        first = await connection.events(1)
        started.set()
        return Reply(status, first + await connection.events()), monotonic()


def test_after_each_of_many_kills_streams_are_told_and_another_engine_serves(served: Served) -> None:
    async def kill_once(number: int, expected: str) -> tuple[float, float]:
        started = [asyncio.Event() for _ in range(8)]
        streams = [asyncio.create_task(begun(served.url, event)) for event in started]
        for event in started:
            await event.wait()
        killed = monotonic()
        os.kill(served.engine.pid, SIGNALS[number % len(SIGNALS)])
        ends = [await stream for stream in streams]
        assert all(reply.is_told for reply, _ in ends)
        assert (await ask(served.url, CANARY)).text == expected
        return max(end for _, end in ends) - killed, monotonic() - killed

    async def storm() -> tuple[list[float], list[float]]:
        expected = (await ask(served.url, CANARY)).text
        found = [await kill_once(number, expected) for number in range(KILLS)]
        return [told for told, _ in found], [serving for _, serving in found]

    before = served.engine.restarts
    told, again = asyncio.run(storm())
    print(f"{KILLS} kills: told after at most {max(told):.3f} s, serving after {max(again):.2f} s")
    assert max(told) <= TOLD_SECONDS
    assert max(again) <= SERVING_SECONDS
    assert served.engine.restarts == before + KILLS


def fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def drop(served: Served, rng: random.Random) -> None:
    """One client that leaves: before its header is sent, while its prompt runs, or at some token."""
    kind = rng.random()
    body = {**LONG, "seed": rng.randrange(100), "n": rng.choice((1, 1, 2)), "temperature": 1.0}
    if kind < 0.4:
        body["prompt"] = [rng.randrange(100) for _ in range(900)]
    async with Connection(served.url, body) as connection:
        if kind < 0.1:
            await connection.send(connection.request[: rng.randrange(1, 60)])
        elif kind < 0.4:
            await connection.send()
            await asyncio.sleep(rng.random() * 0.02)
        else:
            await connection.send()
            if await connection.status() == 200:
                await connection.events(rng.randrange(1, 40))


def test_a_storm_of_clients_that_leave_leaves_nothing_behind(served: Served) -> None:
    async def at_once(work: Callable[[], Awaitable[None]], count: int, most: int) -> None:
        slots = asyncio.Semaphore(most)

        async def one() -> None:
            async with slots:
                await work()

        await asyncio.gather(*(one() for _ in range(count)))

    rng = random.Random(7)
    expected = asyncio.run(ask(served.url, CANARY)).text
    asyncio.run(at_once(lambda: drop(served, rng), 32, 32))  # what is made on first use is there
    assert served.until(lambda: served.free_blocks()[0] == served.free_blocks()[1])
    assert served.until(lambda: not served.server.open.connections)
    pids, tasks = (os.getpid(), served.engine.pid), served.tasks()
    before = [fds(pid) for pid in pids]
    asyncio.run(at_once(lambda: drop(served, rng), DROPS, 64))
    assert served.until(lambda: not served.server.open.connections)
    free, total = served.free_blocks()
    assert free == total
    assert served.until(lambda: served.tasks() <= tasks)
    assert served.until(lambda: [fds(pid) for pid in pids] <= before), [fds(pid) for pid in pids]
    assert served.engine.restarts == 0 or served.engine.pid == pids[1]
    assert asyncio.run(ask(served.url, CANARY)).text == expected


@with_slack
def test_a_client_that_leaves_is_gone_from_the_scheduler_at_once(served: Served, slack: float) -> None:
    async def leave() -> float:
        async with Connection(served.url, LONG) as connection:
            await connection.send()
            assert await connection.status() == 200
            await connection.events(3)
        left = monotonic()
        while served.engine.load().running:
            await asyncio.sleep(0.001)
        return monotonic() - left

    async def repeat() -> list[float]:
        return sorted([await leave() for _ in range(100)])

    times = asyncio.run(repeat())
    print(f"cancelled after {times[50]:.4f} s (median), {times[98]:.4f} s (99 of 100)")
    assert times[98] <= slack * CANCEL_SECONDS


def test_sigterm_under_64_streams_tells_each(tiny_path: Path) -> None:
    async def stop(url: str, end: Callable[[], None]) -> list[Reply]:
        started = [asyncio.Event() for _ in range(64)]
        streams = [asyncio.create_task(begun(url, event)) for event in started]
        for event in started:
            await event.wait()
        end()
        return [reply for reply, _ in await asyncio.gather(*streams)]

    with running_command(tiny_path, "-np", "64") as (process, url, _):
        replies = asyncio.run(stop(url, process.terminate))
        assert all(reply.is_told for reply in replies)
        assert process.wait(STOP_SECONDS) == 0


def test_256_streams_say_what_each_says_alone(tiny_path: Path) -> None:
    async def again_and_again(url: str, body: dict[str, object], alone: str, until: float) -> int:
        count = 0
        while monotonic() < until:
            reply = await ask(url, body)
            assert reply.status == 200, reply.events
            assert reply.text == alone, body
            count += 1
        return count

    async def run(url: str) -> int:
        bodies = [
            {"prompt": f"{number} the", "max_tokens": 48, "ignore_eos": True, "seed": number}
            for number in range(256)
        ]
        alone = [(await ask(url, body)).text for body in bodies]
        assert len(set(alone)) == 256
        host = url.removeprefix("http://").split(":")
        idle = [await asyncio.open_connection(host[0], int(host[1])) for _ in range(1000)]
        until = monotonic() + SECONDS
        streams = zip(bodies, alone, strict=True)
        counts = await asyncio.gather(*(again_and_again(url, body, text, until) for body, text in streams))
        for _, writer in idle:
            writer.close()
        return sum(counts)

    with running_command(tiny_path, "-np", "64", "--max-queue", "512") as (_, url, _engine):
        count = asyncio.run(run(url))
    print(f"{count} streams of 48 tokens in {SECONDS:.0f} s, 256 at once, each as alone")
    assert count >= 256
