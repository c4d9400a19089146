"""More requests than can be served (reliability.md 7); the sixty seconds of it with `pytest -m load`.

PELTON_LOAD_SECONDS says how long the load lasts (60).
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest

from ..serving import running_command, serving
from ..sse import Connection, Reply, ask

SECONDS = float(os.environ.get("PELTON_LOAD_SECONDS", "60"))
AT_ONCE, QUEUE, TIMES = 8, 8, 10
REFUSED_SECONDS, RECOVERED_SECONDS = 0.1, 5.0
MOST_WAIT, LEAST_GOODPUT = 3.0, 0.9
BODY = {"prompt": "the user", "max_tokens": 64, "ignore_eos": True, "seed": 9}


@dataclass
class Outcome:
    """What became of requests: seconds to the first token and to a refusal, ends of those served."""

    first: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    retry_after: list[int] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    async def send(self, url: str) -> None:
        began = monotonic()
        async with Connection(url, BODY) as connection:
            await connection.send()
            status = await connection.status()
            if status == 429:
                self.refused.append(monotonic() - began)
                told = re.search(r"retry-after: (\d+)", connection.head, re.IGNORECASE)
                assert told is not None
                self.retry_after.append(int(told[1]))
                return
            assert status == 200
            first = await connection.events(1)
            self.first.append(monotonic() - began)
            assert Reply(status, first + await connection.events()).is_told
            self.ended.append(monotonic())


def test_ten_times_too_many_are_told_to_come_again_and_the_rest_get_the_same_text(tiny_path: Path) -> None:
    with serving(tiny_path, max_num_seqs=2, max_queue=2) as served:

        async def storm() -> tuple[str, list[Reply], Outcome]:
            short = {**BODY, "max_tokens": 200}
            alone = (await ask(served.url, short)).text
            outcome = Outcome()
            held = [asyncio.create_task(ask(served.url, short)) for _ in range(4)]
            while served.service.gate.under_way < 4:
                await asyncio.sleep(0.001)
            await asyncio.gather(*(outcome.send(served.url) for _ in range(36)))
            return alone, [await each for each in held], outcome

        alone, held, outcome = asyncio.run(storm())
        assert [reply.text for reply in held] == [alone] * 4
        assert len(outcome.refused) + len(outcome.ended) == 36
        assert len(outcome.refused) >= 20
        assert all(1 <= seconds <= 60 for seconds in outcome.retry_after)
        assert served.http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200
        assert served.free_blocks()[0] == served.free_blocks()[1]


async def peak_rate(url: str, seconds: float) -> float:
    """Requests a second with as many under way as are let in."""
    outcome, end = Outcome(), monotonic() + seconds

    async def one_after_another() -> None:
        while monotonic() < end:
            await outcome.send(url)

    began = monotonic()
    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE + QUEUE)))
    assert not outcome.refused
    return len(outcome.ended) / (monotonic() - began)


async def overload(url: str, rate: float, seconds: float) -> tuple[Outcome, float, float]:
    """Poisson arrivals at `rate`; what became of them, when they began to come and when they ended."""
    outcome, draw, tasks = Outcome(), random.Random(1), list[asyncio.Task[None]]()
    began = at = monotonic()
    while at < began + seconds:
        await asyncio.sleep(max(0.0, at - monotonic()))
        tasks.append(asyncio.create_task(outcome.send(url)))
        at += draw.expovariate(rate)
    ended = monotonic()
    await asyncio.gather(*tasks)
    return outcome, began, ended


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@pytest.mark.load
@pytest.mark.speed
def test_ten_times_its_capacity_leaves_goodput_and_waits_as_they_were(real_model_path: Path) -> None:
    flags = ("-np", str(AT_ONCE), "--max-queue", str(QUEUE), "-c", "512")
    with running_command(real_model_path, *flags) as (_, url, _):

        async def run() -> tuple[float, Outcome, float, float]:
            await peak_rate(url, 2.0)  # warm
            peak = await peak_rate(url, 10.0)
            outcome, began, ended = await overload(url, TIMES * peak, SECONDS)
            goodput = sum(began + 2 <= at <= ended for at in outcome.ended) / (ended - began - 2)
            recovering = monotonic()
            while True:  # a full load is served again as before
                after = Outcome()
                await asyncio.gather(*(after.send(url) for _ in range(AT_ONCE)))
                if not after.refused:
                    break
            return peak, outcome, goodput, monotonic() - recovering - AT_ONCE / peak

        peak, outcome, goodput, recovered = asyncio.run(run())
        bound = (AT_ONCE + QUEUE) / peak  # what a full queue takes
        print(
            f"\npeak {peak:.1f}/s, goodput {goodput:.1f}/s at {TIMES}x; {len(outcome.refused)} refused,"
            f" p99 {quantile(outcome.refused, 0.99) * 1e3:.0f} ms, told {min(outcome.retry_after)} to"
            f" {max(outcome.retry_after)} s; TTFT p99"
            f" {quantile(outcome.first, 0.99):.2f} s, bound {bound:.2f} s; recovered after {recovered:.2f} s"
        )
        assert goodput >= LEAST_GOODPUT * peak
        assert quantile(outcome.refused, 0.99) <= REFUSED_SECONDS
        assert quantile(outcome.first, 0.99) <= MOST_WAIT * bound
        assert recovered <= RECOVERED_SECONDS
