"""/v1/responses through OpenAI's own client: it says what the chat says, and goes on from what was kept."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response

from pelton.serve.http.keys import TenantKey
from pelton.serve.openai.fields import ChatMessage
from pelton.serve.responses.fields import ResponsesRequest
from pelton.serve.responses.replies import OutputMessage, OutputTextPart, ResponseReply
from pelton.serve.responses.store import Kept, ResponseStore

from ..serving import CONTEXT, NAME, PATIENCE, Served, serving

ASK = "hello world"
SEEDED = {"seed": 3}
ADD = {
    "type": "object",
    "properties": {name: {"type": "integer", "minimum": 0, "maximum": 99} for name in "ab"},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "name": "add", "description": "Adds", "parameters": ADD, "strict": True}]


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    keys = (TenantKey("ann", "key-of-ann"), TenantKey("bob", "key-of-bob"))
    with serving(tiny_path, tenant_keys=keys) as served:
        served.http.headers["Authorization"] = "Bearer key-of-ann"
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[OpenAI]:
    with served.openai("key-of-ann") as client:
        yield client


def chat_text(served: Served, messages: list[Any], tokens: int = 20) -> str:
    body = {"messages": messages, "max_tokens": tokens, **SEEDED}
    text: str = served.http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    return text


def create(client: OpenAI, given: Any = ASK, **fields: Any) -> Response:
    reply: Response = client.responses.create(
        model=NAME, input=given, **{"max_output_tokens": 20, "extra_body": SEEDED, **fields}
    )
    return reply


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_a_response_says_what_the_chat_says(served: Served, client: OpenAI) -> None:
    reply = create(client, instructions="be the one", metadata={"a": "b"})
    assert reply.output_text == chat_text(served, [{"role": "system", "content": "be the one"}, user(ASK)])
    assert reply.status in ("completed", "incomplete")
    assert (reply.incomplete_details is None) == (reply.status == "completed")
    assert (reply.metadata, reply.instructions, reply.model) == ({"a": "b"}, "be the one", NAME)
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens
    assert reply.usage.input_tokens_details.cached_tokens >= 0
    assert client.responses.retrieve(reply.id) == reply


def test_a_stream_has_every_event_in_order_and_adds_up(client: OpenAI) -> None:
    text = create(client).output_text
    body = {**SEEDED, "stop": text[6:8]}
    whole = create(client, extra_body=body)
    assert (whole.status, whole.output_text) == ("completed", text[: text.index(text[6:8])])
    with client.responses.stream(model=NAME, input=ASK, max_output_tokens=20, extra_body=body) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:-1] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == whole.output_text == final.output_text
    assert final.usage == whole.usage
    assert client.responses.retrieve(final.id).output_text == deltas


def test_a_conversation_goes_on_from_what_was_kept(served: Served, client: OpenAI) -> None:
    first = create(client, instructions="only for the first")
    second = create(client, "start again", previous_response_id=first.id)
    talk = [user(ASK), {"role": "assistant", "content": first.output_text}, user("start again")]
    assert second.output_text == chat_text(served, talk)
    third = create(client, [user("the end")], previous_response_id=second.id)
    talk += [{"role": "assistant", "content": second.output_text}, user("the end")]
    assert third.output_text == chat_text(served, talk)
    by_hand = create(client, [user(ASK), *(item.to_dict() for item in first.output), user("start again")])
    assert by_hand.output_text == second.output_text


def test_items_parts_and_roles(served: Served, client: OpenAI) -> None:
    given = [
        {"role": "developer", "content": "be the one"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASK}]},
    ]
    reply = create(client, given)
    assert reply.output_text == chat_text(served, [{"role": "system", "content": "be the one"}, user(ASK)])
    items = client.responses.input_items.list(reply.id, order="asc").data
    assert [item.to_dict()["role"] for item in items] == ["developer", "user"]
    assert len({item.to_dict()["id"] for item in items}) == 2


def test_logprobs_come_along_where_asked_for(client: OpenAI) -> None:
    reply = create(client, top_logprobs=2, include=["message.output_text.logprobs"], max_output_tokens=4)
    document: Any = reply.to_dict()
    (part,) = document["output"][0]["content"]
    assert [len(entry["top_logprobs"]) for entry in part["logprobs"]] == [2] * len(part["logprobs"])
    assert part["logprobs"]


def test_what_is_deleted_not_kept_or_another_tenants_is_not_there(served: Served, client: OpenAI) -> None:
    kept, unkept = create(client), create(client, store=False)
    with served.openai("key-of-bob") as other:
        for name, who in ((unkept.id, client), (kept.id, other), ("resp_none", client)):
            with pytest.raises(openai.NotFoundError):
                who.responses.retrieve(name)
            with pytest.raises(openai.NotFoundError):
                who.responses.delete(name)
            with pytest.raises(openai.BadRequestError) as refused:
                create(who, previous_response_id=name)
            assert refused.value.param == "previous_response_id"
    client.responses.delete(kept.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept.id)


def wait_for(client: OpenAI, name: str, *statuses: str) -> Response:
    until = time.monotonic() + PATIENCE
    while True:
        reply = client.responses.retrieve(name)
        if reply.status in statuses:
            return reply
        assert time.monotonic() < until


def test_a_response_in_the_background_is_fetched_later(client: OpenAI) -> None:
    reply = create(client, background=True)
    assert reply.status == "queued"
    done = wait_for(client, reply.id, "completed", "incomplete")
    assert done.output_text == create(client).output_text


def test_a_response_in_the_background_can_be_cancelled(served: Served, client: OpenAI) -> None:
    reply = create(client, background=True, max_output_tokens=1000)
    cancelled = client.responses.cancel(reply.id)
    assert cancelled.status in ("cancelled", "completed", "incomplete")
    assert client.responses.retrieve(reply.id).status == cancelled.status
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(create(client).id)
    free, total = served.free_blocks()
    assert free == total


def test_a_failure_in_the_background_is_told(client: OpenAI) -> None:
    reply = create(client, "hello " * 2000, background=True)
    failed = wait_for(client, reply.id, "failed")
    assert failed.error is not None
    assert failed.error.code == "invalid_prompt"
    assert str(CONTEXT) in failed.error.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [user("x"), {"type": "item_reference", "id": "x"}]}, "input[1]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": "hello " * 2000}, "input"),
        ({"input": [user("hello " * 2000)]}, "input"),
        ({"temperature": 1000}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"background": True, "stream": True}, "background"),
        ({"background": True, "store": False}, "background"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"text": {"format": {"type": "image"}}}, "text.format"),
        ({"reasoning_tokens": 1}, "reasoning_tokens"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{**TOOLS[0], "name": "a b"}]}, "tools[0].name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 5}}}},
            "text.format.schema",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_errors_name_the_field(served: Served, fields: dict[str, Any], param: str) -> None:
    reply = served.http.post("/v1/responses", json={"input": ASK, "max_output_tokens": 4, **fields})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"role": "user", "content": [{"type": "input_image"}]}, "type 'input_image' is not taken here"),
        ({"role": "user", "content": [{"text": "x"}]}, "needs a type"),
        ({"type": "reasoning", "summary": []}, "only 'message', 'function_call', 'function_call_output'"),
        ({"type": "x" * 5000}, "is not taken here"),
    ],
    ids=["image", "none", "reasoning", "long"],
)
def test_a_type_that_is_not_taken_is_told(served: Served, item: Any, message: str) -> None:
    reply = served.http.post("/v1/responses", json={"input": [item]})
    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]
    assert len(reply.content) < 500


def kept(name: str, characters: int = 0) -> Kept:
    message = OutputMessage(id="m", status="completed", content=[OutputTextPart(text="x" * characters)])
    body = ResponsesRequest(input="hello")
    reply = ResponseReply(
        id=name, created_at=0, status="completed", background=False, instructions=None,
        max_output_tokens=None, metadata={}, model=NAME, output=[message], previous_response_id=None,
        store=True, temperature=1.0, top_logprobs=0, top_p=1.0, user=None, parallel_tool_calls=True,
        text={}, tool_choice="auto", tools=[],
    )  # fmt: skip
    return Kept(reply, body.items, [ChatMessage(role="user", content="hello")])


def test_the_store_is_bounded_by_number_and_by_size() -> None:
    store = ResponseStore(most=3, most_characters=100_000)
    for number in range(5):
        store.put("", kept(f"r{number}"))
    assert [store.holds("", f"r{number}") for number in range(5)] == [False, False, True, True, True]
    store.put("", kept("large", 90_000))
    store.put("", kept("larger", 90_000))
    assert (store.holds("", "large"), store.holds("", "larger"), len(store)) == (False, True, 1)
    store.delete("", "larger")
    assert len(store) == 0


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "add"}], ids=["any", "named"])
def test_a_call_of_a_tool_is_an_item_streamed_and_whole(client: OpenAI, choice: Any) -> None:
    given: Any = {
        "tools": TOOLS,
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_output_tokens": 200,
    }
    reply = create(client, **given)
    (item,) = reply.output
    assert item.type == "function_call"
    assert (reply.status, item.status, item.name) == ("completed", "completed", "add")
    assert set(json.loads(item.arguments)) == {"a", "b"}
    with client.responses.stream(model=NAME, input=ASK, extra_body=SEEDED, **given) as stream:
        events = list(stream)
        (streamed,) = stream.get_final_response().output
    assert streamed.type == "function_call"
    assert streamed.arguments == item.arguments
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == item.arguments
    result = {"type": "function_call_output", "call_id": item.call_id, "output": "5"}
    kept = create(client, [result], previous_response_id=reply.id, tools=TOOLS)
    by_hand = create(client, [user(ASK), item.to_dict(), result], tools=TOOLS)
    assert kept.output_text == by_hand.output_text
    assert kept.usage is not None
    assert by_hand.usage is not None
    assert kept.usage.input_tokens == by_hand.usage.input_tokens


def test_a_format_of_text_is_held_to(client: OpenAI) -> None:
    form: Any = {"type": "json_schema", "name": "sum", "schema": ADD, "strict": True}
    reply = create(client, text={"format": form}, max_output_tokens=200)
    assert set(json.loads(reply.output_text)) == {"a", "b"}
    assert reply.text is not None
    assert reply.text.format is not None
    assert reply.text.format.type == "json_schema"
