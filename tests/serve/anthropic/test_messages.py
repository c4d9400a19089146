"""Anthropic's API through Anthropic's own client: it says what the chat says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from ..serving import NAME, PATIENCE, Served, serving

KEY = "sk-ant-of-our-own"
ASK: list[Any] = [{"role": "user", "content": "hello world"}]
SAMPLING = {"temperature": 0.7, "seed": 3}


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path, api_key=KEY) as served:
        served.http.headers["x-api-key"] = KEY
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Anthropic]:
    with Anthropic(base_url=served.url, api_key=KEY, max_retries=0, timeout=PATIENCE) as client:
        yield client


def chat_text(served: Served, messages: list[Any], **fields: Any) -> str:
    body = {"messages": messages, **SAMPLING, **fields}
    text: str = served.http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    return text


def create(client: Anthropic, messages: list[Any] = ASK, **fields: Any) -> anthropic.types.Message:
    reply: anthropic.types.Message = client.messages.create(
        model=NAME, messages=messages, extra_body=SAMPLING, **{"max_tokens": 20, **fields}
    )
    return reply


def text_of(reply: anthropic.types.Message) -> str:
    (block,) = reply.content
    assert block.type == "text"
    return block.text


def test_a_message_says_what_the_chat_says(served: Served, client: Anthropic) -> None:
    reply = create(client, system="be the one")
    talk = [{"role": "system", "content": "be the one"}, *ASK]
    assert text_of(reply) == chat_text(served, talk, max_tokens=20)
    assert (reply.type, reply.role, reply.model) == ("message", "assistant", NAME)
    assert reply.stop_reason in ("max_tokens", "end_turn")
    assert reply.usage.output_tokens <= 20
    tokens = served.http.post("/tokenize", json={"messages": talk}).json()["count"]
    assert reply.usage.input_tokens + (reply.usage.cache_read_input_tokens or 0) == tokens
    assert reply.id.startswith("msg_")
    assert reply._request_id == reply.id.removeprefix("msg_")


def test_a_stream_has_every_event_and_adds_up(client: Anthropic) -> None:
    whole = create(client)
    kinds = []
    with client.messages.stream(model=NAME, max_tokens=20, messages=ASK, extra_body=SAMPLING) as stream:
        for event in stream:
            kinds.append(event.type)
        final = stream.get_final_message()
    assert final.content[0].model_dump()["text"] == text_of(whole)
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) <= {"content_block_delta", "text"}  # the client adds its own "text"
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_stop_sequences_are_told(client: Anthropic) -> None:
    whole = text_of(create(client))
    stop = whole[5:7]
    reply = create(client, stop_sequences=[stop])
    assert text_of(reply) == whole[: whole.index(stop)]
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", stop)


def test_blocks_prefill_and_history(served: Served, client: Anthropic) -> None:
    parts = [
        {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "the"},
    ]
    talk: list[Any] = [{"role": "user", "content": parts}, {"role": "assistant", "content": "wor"}]
    plain = [{"role": "user", "content": "hello\nthe"}, talk[1]]
    expected = chat_text(
        served, plain, max_tokens=20, continue_final_message=True, add_generation_prompt=False
    )
    assert text_of(create(client, talk)) == expected


def test_count_tokens_is_what_the_message_takes(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model=NAME, messages=ASK, system="be the one")
    usage = create(client, system="be the one").usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*ASK, {"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[1]"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "'image'"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "x",
                                "content": [{"type": "image", "source": {}}],
                            }
                        ],
                    }
                ]
            },
            "not 'image'",
        ),
        ({"messages": [{"role": "user", "content": "hello " * 2000}]}, "messages"),
        ({"nonsense": 1}, "nonsense"),
        ({"priority": 0.5}, "priority"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_errors_have_anthropics_shape_and_name_the_field(
    client: Anthropic, fields: dict[str, Any], word: str
) -> None:
    body = {"model": NAME, "max_tokens": 4, "messages": ASK, **fields}
    for stream in (False, True):
        with pytest.raises(anthropic.BadRequestError) as caught:
            client.post("/v1/messages", body={**body, "stream": stream}, cast_to=object)
        assert caught.value.request_id
        document: Any = caught.value.body
        assert document["type"] == "error"
        assert document["error"]["type"] == "invalid_request_error"
        assert word in document["error"]["message"]


def test_strangers_other_models_and_large_bodies(served: Served, client: Anthropic) -> None:
    with Anthropic(base_url=served.url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            create(stranger)
        assert refused.value.request_id
        assert refused.value.body == {
            "type": "error",
            "error": {"type": "authentication_error", "message": "the API key is missing or wrong"},
        }
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude", max_tokens=4, messages=ASK)
    large = served.http.post("/v1/messages", content=b"x" * (9 << 20))
    assert (large.status_code, large.json()["error"]["type"]) == (413, "request_too_large")
    with Anthropic(base_url=served.url, auth_token=KEY, api_key=None, max_retries=0) as bearer:
        assert create(bearer).usage.output_tokens > 0


def test_a_failure_in_a_stream_is_an_error_event(served: Served) -> None:
    body = {"messages": ASK, "max_tokens": 900, "stream": True}
    with served.http.stream("POST", "/v1/messages", json=body) as reply:
        assert reply.headers["request-id"]
        lines = [line for line in reply.iter_lines() if line]
    assert lines[0] == "event: message_start"
    assert lines[-2] == "event: message_stop"


TOOLS: Any = [
    {
        "name": "add",
        "description": "Adds",
        "input_schema": {
            "type": "object",
            "properties": {name: {"type": "integer", "minimum": 0, "maximum": 99} for name in "ab"},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    }
]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "add"}], ids=["any", "tool"])
def test_a_call_of_a_tool_is_a_block_streamed_and_whole(client: Anthropic, choice: Any) -> None:
    given: Any = {"tools": TOOLS, "tool_choice": {**choice, "disable_parallel_tool_use": True}}
    reply = create(client, max_tokens=200, **given)
    (block,) = reply.content
    assert block.type == "tool_use"
    assert (reply.stop_reason, block.name, set(block.input)) == ("tool_use", "add", {"a", "b"})
    with client.messages.stream(
        model=NAME, max_tokens=200, messages=ASK, extra_body=SAMPLING, **given
    ) as stream:
        final = stream.get_final_message()
    (streamed,) = final.content
    assert streamed.type == "tool_use"
    assert (streamed.input, final.stop_reason) == (block.input, "tool_use")
    talk: list[Any] = [
        *ASK,
        {"role": "assistant", "content": [block.model_dump(include={"type", "id", "name", "input"})]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "5"}]},
    ]
    after = create(client, talk, tools=TOOLS)
    assert after.usage.input_tokens + (after.usage.cache_read_input_tokens or 0) > 0


def test_an_output_format_is_held_to(client: Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    reply = create(
        client, max_tokens=200, output_config={"format": {"type": "json_schema", "schema": schema}}
    )
    assert set(json.loads(text_of(reply))) == {"a"}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"tools": [{**TOOLS[0], "name": "a b"}]}, "tools[0].name"),
        ({"tools": [{**TOOLS[0], "input_schema": {"type": 5}}]}, "tools"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "sub"}}, "tool_choice"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": 5}}}},
            "output_config.format",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_tools_are_named(served: Served, fields: dict[str, Any], word: str) -> None:
    reply = served.http.post("/v1/messages", json={"max_tokens": 4, "messages": ASK, **fields})
    assert reply.status_code == 400, reply.text
    assert word in reply.json()["error"]["message"]
