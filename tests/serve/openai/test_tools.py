"""Tools through HTTP with OpenAI's client; the model is made to call, or to write what looks like calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openai import BadRequestError

from ..serving import NAME, Served, serving

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["c", "f"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
ADD = {
    "type": "object",
    "properties": {name: {"type": "integer", "minimum": 0, "maximum": 99} for name in "ab"},
    "required": ["a", "b"],
    "additionalProperties": False,
}
SCHEMAS = {"get_weather": WEATHER, "add": ADD}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": f"Does {name}", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
BAD = {"properties": {"x": {"type": "nothing"}}}
ASK: Any = [{"role": "user", "content": "What is the weather in Paris, and 2 + 3?"}]


@pytest.fixture(scope="module")
def served(real_model_path: Path) -> Iterator[Served]:
    with serving(real_model_path) as running:
        yield running


def ask(served: Served, messages: Any = ASK, **fields: Any) -> Any:
    given = {"temperature": 0, "max_tokens": 120, "tools": TOOLS, **fields}
    return served.openai().chat.completions.create(model=NAME, messages=messages, **given)


def test_required_calls_have_arguments_of_their_schema(served: Served) -> None:
    for seed in range(4):
        reply = ask(served, tool_choice="required", parallel_tool_calls=False, temperature=1, seed=seed)
        (choice,) = reply.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])


def test_a_named_tool_is_the_one_called(served: Served) -> None:
    for name in SCHEMAS:
        reply = ask(served, tool_choice={"type": "function", "function": {"name": name}})
        (call,) = reply.choices[0].message.tool_calls
        assert call.function.name == name


@pytest.mark.parametrize("choice", ["required", "auto", {"type": "function", "function": {"name": "add"}}])
def test_streamed_pieces_add_up_to_the_whole(served: Served, choice: Any) -> None:
    fields: dict[str, Any] = {"tool_choice": choice, "temperature": 1, "seed": 11, "n": 2, "max_tokens": 60}
    whole = ask(served, **fields)
    calls: dict[int, list[dict[str, str]]] = {0: [], 1: []}
    texts = {0: "", 1: ""}
    reasons: dict[int, str | None] = {}
    ids = set()
    for chunk in ask(served, stream=True, **fields):
        (part,) = chunk.choices
        texts[part.index] += part.delta.content or ""
        reasons[part.index] = part.finish_reason
        for piece in part.delta.tool_calls or ():
            if piece.id is not None:
                assert piece.index == len(calls[part.index])
                ids.add(piece.id)
                calls[part.index].append({"name": piece.function.name, "arguments": ""})
            calls[part.index][piece.index]["arguments"] += piece.function.arguments
    for choice_ in whole.choices:
        expected = [call.function.model_dump() for call in choice_.message.tool_calls or ()]
        assert calls[choice_.index] == expected
        assert texts[choice_.index] == (choice_.message.content or "")
        assert reasons[choice_.index] == choice_.finish_reason
    assert len(ids) == sum(map(len, calls.values()))


def history() -> Any:
    """A conversation after which even a small model calls by itself."""
    talk: list[dict[str, Any]] = []
    for number, city in enumerate(("Rome", "Oslo", "Lima")):
        arguments = json.dumps({"city": city, "unit": "c"})
        call: dict[str, Any] = {"id": f"c{number}", "type": "function"}
        call["function"] = {"name": "get_weather", "arguments": arguments}
        talk += [
            {"role": "user", "content": f"Weather in {city}?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{number}", "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ]
    return [*talk, {"role": "user", "content": "Weather in Paris?"}]


@pytest.mark.parametrize("strict", [False, True])
def test_a_model_calls_by_itself(served: Served, strict: bool) -> None:
    tools = [{"type": "function", "function": {**tool["function"], "strict": strict}} for tool in TOOLS]
    (choice,) = ask(served, history(), tools=tools).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris", "unit": "c"}
    stream = list(ask(served, history(), tools=tools, stream=True))
    pieces = [piece for chunk in stream for piece in chunk.choices[0].delta.tool_calls or ()]
    assert [(p.function.name, p.function.arguments) for p in pieces] == [
        (call.function.name, call.function.arguments)
    ]
    assert stream[-1].choices[0].finish_reason == "tool_calls"


def test_a_stream_that_is_cut_off_ends_with_length(served: Served) -> None:
    reply = ask(served, tool_choice="required", max_tokens=20)
    assert reply.choices[0].finish_reason == "length"


def test_none_keeps_tools_out_of_prompt_and_answer(served: Served) -> None:
    without = ask(served, tool_choice="none", max_tokens=5)
    plain = served.openai().chat.completions.create(model=NAME, messages=ASK, temperature=0, max_tokens=5)
    assert plain.usage is not None
    assert without.usage.prompt_tokens == plain.usage.prompt_tokens
    assert without.choices[0].message.content == plain.choices[0].message.content


def test_without_a_form_the_json_asked_for_or_a_call(served: Served) -> None:
    reply = ask(served, response_format={"type": "json_object"}, temperature=1, seed=2, max_tokens=300)
    message = reply.choices[0].message
    if message.tool_calls is None and reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(message.content), dict)


def test_a_conversation_with_calls_and_results_goes_on(served: Served) -> None:
    first = ask(served, tool_choice="required", parallel_tool_calls=False)
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny, 20 degrees"}
    second = ask(served, [*ASK, message.model_dump(exclude_none=True), result], max_tokens=10)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + 20
    assert second.choices[0].message.content


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
         "tools[0].function.parameters"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": BAD}}],
          "tool_choice": "required"}, "tools"),
        ({"extra_body": {"structured_outputs": {"regex": "a"}}}, "structured_outputs"),
    ],
)  # fmt: skip
def test_mistakes_are_400_and_named(served: Served, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(served, **fields)
    assert caught.value.param == param
