"""GET /stats: the server at this moment as JSON, for pages and people; monitoring reads /metrics."""

from __future__ import annotations

import asyncio
from time import time
from typing import Literal

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel

from ..errors import EngineStoppedError
from .answers.generation import Service
from .http.replies import json_reply

_VIEW_SECONDS = 5.0
QUANTILES = (0.5, 0.9, 0.99)


class Waits(BaseModel):
    """Seconds to the first token, over the last minute's requests."""

    p50: float
    p90: float
    p99: float


class StepRows(BaseModel):
    """Rows of one step: of prompts, of next tokens, of drafts to verify."""

    prefill: int
    decode: int
    draft: int


class KVMap(BaseModel):
    """KV blocks in the order of their numbers, as runs of [kind, how many]; kinds are free, private (to
    one sequence), shared (by several), cached (with none, kept by the prefix cache)."""

    blocks: int
    free: int
    runs: list[tuple[Literal["free", "private", "shared", "cached"], int]]


class Disk(BaseModel):
    """The prefix cache's folder: blocks and bytes in it, and blocks that were read, written, not written
    (the disk failed; there was no room), files that were damaged, and those that are not this model's."""

    blocks: int
    bytes_used: int
    budget_bytes: int
    loaded: int
    written: int
    failed: int
    dropped: int
    broken: int
    strange: int


class Stats(BaseModel):
    """`under_way` and `capacity` count sequences that were let in. `tokens_per_second` are generated
    tokens in each of the last ten seconds, the latest last. `disk` is null where the prefix cache has no
    folder."""

    model: str
    uptime_seconds: float
    stopping: bool
    under_way: int
    capacity: int
    running: int
    waiting: int
    preemptions: int
    engine_restarts: int
    tokens_per_second: list[int]
    time_to_first_token: Waits | None
    steps: list[StepRows]
    kv: KVMap
    disk: Disk | None


def add_stats(app: FastAPI, service: Service) -> None:
    """The route."""

    @app.get("/stats", response_model=Stats)
    async def stats() -> Response:
        return json_reply(await stats_of(service))


async def stats_of(service: Service) -> Stats:
    """Raises EngineStoppedError where the engine does not answer."""
    try:
        view = await asyncio.wait_for(service.client.view(), _VIEW_SECONDS)
    except asyncio.TimeoutError:
        raise EngineStoppedError("the engine has not answered: it is in a long step") from None
    load, recent = service.client.load(), service.metrics.recent
    waits = recent.wait_quantiles(QUANTILES)
    return Stats(
        model=service.settings.served_model_name,
        uptime_seconds=round(time() - service.created, 3),
        stopping=service.gate.stopping,
        under_way=service.gate.under_way,
        capacity=service.gate.capacity,
        running=load.running,
        waiting=load.waiting,
        preemptions=load.preemptions,
        engine_restarts=service.client.restarts,
        tokens_per_second=recent.tokens_per_second,
        time_to_first_token=None if waits is None else Waits(p50=waits[0], p90=waits[1], p99=waits[2]),
        steps=[StepRows(prefill=p, decode=d, draft=r) for p, d, r in view.steps],
        kv=KVMap.model_validate({"blocks": load.kv_blocks, "free": load.kv_free, "runs": view.blocks}),
        disk=None if load.disk is None else Disk.model_validate(load.disk, from_attributes=True),
    )
