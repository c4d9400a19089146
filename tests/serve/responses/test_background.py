"""What runs in the background has the time of its request, and its line in the log is written at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pelton.serve.seeing.record import RequestRecord

from ..serving import Served, serving

PATH = "/v1/responses"


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path) as served:
        yield served


def start(served: Served, tokens: int, seen: list[RequestRecord], **headers: str) -> str:
    served.service.on_end.append(seen.append)
    body = {"input": "hello", "max_output_tokens": tokens, "background": True, "seed": 1}
    reply = served.http.post(PATH, json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    name: str = reply.json()["id"]
    return name


def posted(seen: list[RequestRecord]) -> list[RequestRecord]:
    return [record for record in seen if record.method == "POST" and record.route == PATH]


def test_its_line_says_what_came_of_it(served: Served) -> None:
    seen: list[RequestRecord] = []
    name = start(served, 40, seen, **{"X-Request-Id": "mine"})
    assert served.until(lambda: bool(posted(seen)))
    (record,) = posted(seen)
    reply = served.http.get(f"{PATH}/{name}").json()
    assert reply["status"] in ("completed", "incomplete")
    usage = reply["usage"]
    assert (record.id, record.status) == ("mine", 200)
    assert (record.prompt_tokens, record.completion_tokens) == (usage["input_tokens"], usage["output_tokens"])
    assert len(record.finish_reasons) == 1
    assert record.first_token is not None
    assert record.ended is not None
    assert record.ended >= record.first_token


def test_what_is_cancelled_has_its_line_too(served: Served) -> None:
    seen: list[RequestRecord] = []
    name = start(served, 900, seen)
    assert served.http.post(f"{PATH}/{name}/cancel").status_code == 200
    assert served.until(lambda: len(posted(seen)) == 1)
    name = start(served, 900, seen := [])
    assert served.http.delete(f"{PATH}/{name}").status_code == 200
    assert served.until(lambda: len(posted(seen)) == 1)
    free, total = served.free_blocks()
    assert free == total


def test_it_has_no_more_time_than_a_request(tiny_path: Path) -> None:
    seen: list[RequestRecord] = []
    with serving(tiny_path, request_timeout=0.001) as served:  # less than any answer takes
        name = start(served, 900, seen)
        assert served.until(lambda: bool(posted(seen)))
        reply = served.http.get(f"{PATH}/{name}").json()
        assert reply["status"] == "failed"
        assert "which is all it gets" in reply["error"]["message"]
        assert served.free_blocks()[0] == served.free_blocks()[1]
