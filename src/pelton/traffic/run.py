"""Drives a server with sessions at their arrivals and collects every exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from time import perf_counter

import aiohttp

from ..errors import ConfigError
from .arrivals import Arrivals
from .client import Exchange, Target, ask
from .workload import Session

_MOST_LINE_BYTES = 1 << 21


async def drive(
    target: Target,
    sessions: Sequence[Session],
    arrivals: Arrivals,
    *,
    timeout: float = 600.0,
    on_done: Callable[[Exchange], None] = lambda exchange: None,
) -> tuple[list[Exchange], float]:
    """All exchanges in the order they began, and the seconds from the first request to the last answer.

    A session's next turn is asked when its last was answered; a session that fails ends there.
    """
    gate = asyncio.Semaphore(arrivals.concurrency) if arrivals.concurrency else None
    exchanges: list[Exchange] = []
    limits = aiohttp.ClientTimeout(total=timeout)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        timeout=limits, connector=connector, read_bufsize=_MOST_LINE_BYTES
    ) as http:
        start = perf_counter()

        async def one(session: Session, moment: float) -> None:
            await asyncio.sleep(max(0.0, moment - (perf_counter() - start)))
            async with gate or nullcontext():
                await _converse(http, target, session, start, exchanges, on_done)

        moments = arrivals.moments(len(sessions))
        await asyncio.gather(*(one(s, moment) for s, moment in zip(sessions, moments, strict=True)))
        elapsed = perf_counter() - start
    return sorted(exchanges, key=lambda exchange: exchange.start), elapsed


async def _converse(
    http: aiohttp.ClientSession,
    target: Target,
    session: Session,
    start: float,
    exchanges: list[Exchange],
    on_done: Callable[[Exchange], None],
) -> None:
    messages = [{"role": "system", "content": session.system}] if session.system else []
    for turn in session.turns:
        messages.append({"role": "user", "content": turn.text})
        exchange = await ask(http, target, messages, turn.max_tokens, session.name, start)
        exchanges.append(exchange)
        on_done(exchange)
        if not exchange.succeeded:
            return
        messages.append({"role": "assistant", "content": exchange.text})


async def served_model(url: str, key: str | None) -> str:
    """The first model that the server lists. Raises ConfigError where none answers."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http,
            http.get(f"{url}/v1/models", headers=headers) as response,
        ):
            if response.status != 200:
                raise ConfigError(f"/v1/models answers {response.status}", field="base-url", value=url)
            document = await response.json()
            return str(document["data"][0]["id"])
    except (aiohttp.ClientError, OSError, TimeoutError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"no server answers there: {error}", field="base-url", value=url) from None
