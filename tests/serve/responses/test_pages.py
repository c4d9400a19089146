"""The input of a kept response page by page, and parameters that no route silently ignores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI

from pelton.errors import RequestError
from pelton.serve.responses.fields import AnyItem, InputMessage
from pelton.serve.responses.listing import page_of
from pelton.serve.responses.queries import ItemsQuery

from ..serving import NAME, Served, serving

PATH = "/v1/responses"


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path) as served:
        yield served


@pytest.fixture(scope="module")
def kept(served: Served) -> str:
    given: list[Any] = [{"role": "user", "content": f"number {number}"} for number in range(25)]
    with served.openai() as client:
        return client.responses.create(model=NAME, input=given, max_output_tokens=1).id


def numbers(items: Any) -> list[int]:
    return [int(item.to_dict()["content"][0]["text"].split()[1]) for item in items]


def test_a_page_is_the_latest_twenty_and_the_client_finds_the_rest(served: Served, kept: str) -> None:
    first = served.http.get(f"{PATH}/{kept}/input_items").json()
    assert (len(first["data"]), first["has_more"]) == (20, True)
    assert (first["first_id"], first["last_id"]) == (first["data"][0]["id"], first["data"][-1]["id"])
    with served.openai() as client:
        assert numbers(client.responses.input_items.list(kept)) == list(range(25))[::-1]
        assert numbers(client.responses.input_items.list(kept, order="asc", limit=7)) == list(range(25))
        assert numbers(client.responses.input_items.list(kept, order="asc", limit=3).data) == [0, 1, 2]


def messages(ids: list[str | None]) -> list[AnyItem]:
    return [InputMessage(role="user", content=str(at), id=name) for at, name in enumerate(ids)]


@given(
    ids=st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=12),
    limit=st.integers(1, 5),
    order=st.sampled_from(["asc", "desc"]),
)
def test_following_the_pages_ends_and_tells_each_item_once(
    ids: list[str | None], limit: int, order: Any
) -> None:
    items, seen, after = messages(ids), list[str](), None
    for _ in range(len(ids) + 1):
        page = page_of(items, "resp_x", ItemsQuery(limit=limit, order=order, after=after))
        seen += [item["content"][0]["text"] for item in page.data]
        after = page.last_id
        if not page.has_more:
            break
    else:
        pytest.fail("the pages never end")
    in_order = sorted(seen, key=int, reverse=order == "desc")
    assert seen == in_order
    if len(set(filter(None, ids))) == len(list(filter(None, ids))):
        assert len(seen) == len(ids)


def test_an_item_that_is_not_there_is_named() -> None:
    with pytest.raises(RequestError, match="after"):
        page_of(messages([None]), "resp_x", ItemsQuery(after="nowhere"))


@pytest.mark.parametrize(
    ("method", "place", "param"),
    [
        ("GET", "/{}?stream=true", "stream"),
        ("GET", "/{}?starting_after=3", "starting_after"),
        ("GET", "/{}?include[]=reasoning.encrypted_content", "include[]"),
        ("GET", "/{}/input_items?limit=0", "limit"),
        ("GET", "/{}/input_items?limit=101", "limit"),
        ("GET", "/{}/input_items?limit=x", "limit"),
        ("GET", "/{}/input_items?order=up", "order"),
        ("GET", "/{}/input_items?after=nowhere", "after"),
        ("GET", "/{}/input_items?before=x", "before"),
        ("POST", "/{}/cancel?now=1", "now"),
        ("DELETE", "/{}?really=1", "really"),
        ("POST", "?stream=true", "stream"),
    ],
)
def test_parameters_that_mean_nothing_here_are_refused(
    served: Served, kept: str, method: str, place: str, param: str
) -> None:
    reply = served.http.request(method, PATH + place.format(kept), json={"input": "hello"})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
    assert served.http.get(f"{PATH}/{kept}?stream=false").status_code == 200


def test_the_document_tells_of_them(served: Served) -> None:
    operation = served.http.get("/openapi.json").json()["paths"][PATH + "/{response_id}/input_items"]["get"]
    assert {part["name"] for part in operation["parameters"]} >= {"limit", "order", "after"}


def test_the_clients_own_retrieve_still_works(served: Served, kept: str) -> None:
    client: OpenAI
    with served.openai() as client:
        assert client.responses.retrieve(kept).id == kept
