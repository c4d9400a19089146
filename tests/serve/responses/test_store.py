"""What a kept response costs is counted whole, and a failed one costs next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ..serving import Served, serving

MILLION = 10**6
PATH = "/v1/responses"


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path) as served:
        yield served


def post(served: Served, **fields: object) -> httpx.Response:
    return served.http.post(PATH, json={"input": "hello", "max_output_tokens": 1, **fields})


def test_one_request_is_never_more_than_the_queue_takes(served: Served) -> None:
    """256 prompts of 128 texts each were let into an idle server."""
    body = {"prompt": ["a"] * 256, "n": 128, "max_tokens": 1}
    reply = served.http.post("/v1/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "n")


def test_a_background_response_that_failed_keeps_no_input(served: Served) -> None:
    told = post(served, background=True, instructions="word " * (MILLION // 5)).json()
    name = told["id"]

    def failed() -> bool:
        status: str = served.http.get(f"{PATH}/{name}").json()["status"]
        return status == "failed"

    assert served.until(failed)
    assert served.http.get(f"{PATH}/{name}").json()["instructions"] is None
    assert served.http.get(f"{PATH}/{name}/input_items").json()["data"] == []
