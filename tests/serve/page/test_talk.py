"""A question from the page is a request like any other: somebody's, with its time, and in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from pelton.serve.http.keys import TenantKey
from pelton.serve.page.talk import PATH, Controls, Progress, Visitor, talk
from pelton.serve.seeing.record import RequestRecord

from ..serving import PATIENCE, Served, serving

KEYS = (TenantKey("ann", "key-of-ann"), TenantKey("bob", "key-of-bob"))
QUESTION = [("user", "hello world")]


@contextmanager
def told(served: Served) -> Iterator[list[RequestRecord]]:
    seen: list[RequestRecord] = []
    served.service.on_end.append(seen.append)
    yield seen
    served.service.on_end.remove(seen.append)


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path, tenant_keys=KEYS, max_seqs_per_tenant=1) as served:
        yield served


def ask(served: Served, controls: Controls, most: int | None = None, tenant: str = "ann") -> Progress:
    """The last state of an answer, or the one after which the visitor leaves."""

    async def read() -> Progress:
        states: list[Progress] = []
        async with aclosing(talk(Visitor(served.service, tenant), QUESTION, controls)) as answer:
            async for progress in answer:
                states.append(progress)
                if len(states) == most:
                    break
        return states[-1]

    return asyncio.run_coroutine_threadsafe(read(), served.loop).result(PATIENCE)


def test_it_is_its_tenants_and_is_logged(served: Served) -> None:
    with told(served) as seen:
        progress = ask(served, Controls(max_tokens=5, seed=1))
    (record,) = seen
    assert (record.tenant, record.route, record.status) == ("ann", PATH, 200)
    assert record.finish_reasons == [progress.finish_reason]
    assert record.completion_tokens == progress.tokens > 0
    assert record.prompt_tokens > 0
    assert record.ended is not None


def test_it_counts_among_what_its_tenant_may_have(served: Served) -> None:
    with served.service.gate.admit(1, "ann"):
        refused, other = (
            ask(served, Controls(max_tokens=2)),
            ask(served, Controls(max_tokens=2), tenant="bob"),
        )
    assert "of this API key are under way" in (refused.error or "")
    assert other.error is None


@pytest.mark.parametrize(
    ("controls", "status"),
    [
        (Controls(temperature=None), 400),
        (Controls(max_tokens=None), 400),
        (Controls(top_p=7.0), 400),
    ],
)
def test_what_cannot_be_asked_is_said_and_logged(served: Served, controls: Controls, status: int) -> None:
    with told(served) as seen:
        progress = ask(served, controls)
    assert progress.error
    assert [record.status for record in seen] == [status]


def test_who_leaves_ends_it(served: Served) -> None:
    with told(served) as seen:
        ask(served, Controls(max_tokens=900, seed=2), most=1)
    assert [record.status for record in seen] == [499]
    free, total = served.free_blocks()
    assert free == total


def test_it_has_no_more_time_than_a_request(tiny_path: Path) -> None:
    with serving(tiny_path, request_timeout=0.001) as served:  # less than any answer takes
        with told(served) as seen:
            progress = ask(served, Controls(max_tokens=900))
        assert "which is all it gets" in (progress.error or "")
        assert [record.status for record in seen] == [504]
        free, total = served.free_blocks()
        assert free == total
