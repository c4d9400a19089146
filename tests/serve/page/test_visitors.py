"""The page is given to so many at once, and who never opens it gives way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from nicegui import Client
from nicegui.page import page
from starlette.requests import Request

from pelton.serve.page.visitors import MOST_VISITORS, Visitors

from ..serving import PATIENCE
from .test_page import served

HOUR = 3600.0


def client() -> Client:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    return Client(page(""), request=Request(scope))


async def open_it(visitor: Client) -> None:
    """What the browser's websocket does."""
    await visitor.handle_handshake(f"socket of {visitor.id}", f"tab of {visitor.id}", None, visitor.id, None)


def test_no_more_are_let_in_until_one_leaves() -> None:
    async def come_and_go() -> None:
        visitors, several = Visitors(most=3, opening_seconds=HOUR), [client() for _ in range(5)]
        assert [visitors.let_in(one) for one in several] == [True, True, True, False, False]
        several[1].delete()
        assert visitors.let_in(several[3])
        assert not visitors.let_in(several[4])
        assert len(visitors) == 3

    asyncio.run(come_and_go())


def test_who_does_not_open_it_gives_way_and_who_does_stays() -> None:
    async def come() -> None:
        visitors, several = Visitors(most=3, opening_seconds=0.0), [client() for _ in range(6)]
        for one in several[:3]:
            assert visitors.let_in(one)
        await open_it(several[0])
        assert visitors.let_in(several[3])
        assert [one.is_deleted for one in several[:4]] == [False, True, False, False]
        for one in several[2:4]:
            await open_it(one)
        assert not visitors.let_in(several[4])
        several[0].delete()
        assert visitors.let_in(several[5])

    asyncio.run(come())


def test_a_flood_of_requests_for_the_page_is_told_and_others_are_served(tiny_path: Path) -> None:
    with served(tiny_path, "-c", "512") as address, httpx.Client(base_url=address, timeout=PATIENCE) as http:
        paths = ("/ui/", "/ui/nowhere", "/ui/_nicegui/nowhere")
        statuses = [http.get(paths[number % 3]).status_code for number in range(MOST_VISITORS + 5)]
        assert statuses == [200] * MOST_VISITORS + [503] * 5
        refused = http.get("/ui/")
        assert refused.headers["Retry-After"] == "10"
        assert str(MOST_VISITORS) in refused.json()["error"]["message"]
        body = {"prompt": "hello", "max_tokens": 1}
        assert http.post("/v1/completions", json=body).status_code == 200
