"""Structured output through HTTP with OpenAI's client: response_format and structured_outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openai import BadRequestError
from pydantic import BaseModel

from pelton import LLM, SamplingParams, StructuredOutputs

from ..serving import NAME, Served, serving

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer", "minimum": 0}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
ASK: Any = [{"role": "user", "content": "Tell me about Paris."}]


@pytest.fixture(scope="module")
def served(real_model_path: Path) -> Iterator[Served]:
    with serving(real_model_path) as running:
        yield running


@pytest.fixture(scope="module")
def library(real_model_path: Path) -> Iterator[LLM]:
    llm = LLM(str(real_model_path), context_length=512, threads=1, kv_memory=64 << 20)
    yield llm
    llm.close()


def chat(served: Served, **fields: Any) -> str:
    extra = {"temperature": 0, "max_tokens": 80, **fields}
    reply = served.openai().chat.completions.create(model=NAME, messages=ASK, **extra)
    assert reply.choices[0].finish_reason == "stop"
    return reply.choices[0].message.content or ""


def test_a_json_schema(served: Served) -> None:
    schema = {"name": "city", "schema": CITY, "strict": True}
    text = chat(served, response_format={"type": "json_schema", "json_schema": schema})
    jsonschema.validate(json.loads(text), CITY)


def test_a_json_object(served: Served) -> None:
    """A model may go on with an object for ever; those that end are objects."""
    reply = served.openai().chat.completions.create(
        model=NAME, messages=ASK, response_format={"type": "json_object"}, seed=4, n=8, max_tokens=150
    )
    ended = [choice.message.content for choice in reply.choices if choice.finish_reason == "stop"]
    assert ended
    assert all(isinstance(json.loads(text or ""), dict) for text in ended)


def test_a_class_of_the_clients_own(served: Served) -> None:
    class City(BaseModel):
        city: str
        rainy: bool

    reply = served.openai().chat.completions.parse(
        model=NAME, messages=ASK, response_format=City, temperature=0, max_tokens=200
    )
    assert isinstance(reply.choices[0].message.parsed, City)


def test_plain_text_is_no_form(served: Served) -> None:
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 8}
    plain = served.openai().chat.completions.create(model=NAME, messages=ASK, **fields)
    asked = served.openai().chat.completions.create(
        model=NAME, messages=ASK, response_format={"type": "text"}, **fields
    )
    assert asked.choices[0].message.content == plain.choices[0].message.content


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"choice": ["sunny", "rainy"]}, "sunny|rainy"),
        ({"regex": r"\d{4}-\d\d-\d\d"}, r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
        ({"grammar": 'root ::= "<" [a-z]{1,8} ">"'}, "<[a-z]{1,8}>"),
    ],
)
def test_vllms_field_in_both_routes_is_what_the_library_gives(
    served: Served, library: LLM, form: dict[str, Any], pattern: str
) -> None:
    assert re.fullmatch(pattern, chat(served, extra_body={"structured_outputs": form}))
    params: dict[str, Any] = {"temperature": 1.0, "seed": 3, "max_tokens": 60, "n": 2}
    reply = served.openai().completions.create(
        model=NAME, prompt="The weather is", extra_body={"structured_outputs": form}, **params
    )
    same = SamplingParams(structured_outputs=StructuredOutputs(**form), **params)
    expected = library.generate("The weather is", same)
    assert [choice.text for choice in reply.choices] == [output.text for output in expected[0].outputs]
    assert all(re.fullmatch(pattern, choice.text) for choice in reply.choices)


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "y"}}}},
         "response_format.json_schema.schema", "Invalid type: y"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
         "response_format.json_schema.schema", "required"),
        ({"response_format": {"type": "xml"}}, "response_format", "type"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs", "unclosed group"),
        ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex", "characters"),
        ({"structured_outputs": {}}, "structured_outputs", "none is given"),
        ({"structured_outputs": {"regex": "a", "json_object": True}}, "structured_outputs", "regex"),
        ({"structured_outputs": {"guided": "a"}}, "structured_outputs.guided", "no field"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
         "response_format", "not both"),
    ],
)  # fmt: skip
def test_mistakes_are_400_with_the_reason(
    served: Served, fields: dict[str, Any], param: str, reason: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        served.openai().chat.completions.create(model=NAME, messages=ASK, extra_body=fields)
    assert caught.value.param == param
    assert reason in caught.value.message


def test_streams_say_the_same(served: Served) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    fields: dict[str, Any] = {"response_format": form, "temperature": 1, "seed": 5, "max_tokens": 80}
    whole = served.openai().chat.completions.create(model=NAME, messages=ASK, **fields)
    stream = served.openai().chat.completions.create(model=NAME, messages=ASK, stream=True, **fields)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole.choices[0].message.content


def test_a_grammar_that_takes_too_long_hurts_nobody_else(served: Served) -> None:
    rules = "\n".join(f"A{i}: A{i + 1} A{i + 1}" for i in range(60))
    hostile = {"grammar": f'start: A0\n{rules}\nA60: "x"'}
    with pytest.raises(BadRequestError, match=r"takes longer than|too big"):
        chat(served, extra_body={"structured_outputs": hostile})
    assert chat(served, extra_body={"structured_outputs": {"choice": ["still here"]}}) == "still here"


def test_the_helper_ends_with_the_server(real_model_path: Path) -> None:
    with serving(real_model_path) as short:
        chat(short, extra_body={"structured_outputs": {"choice": ["yes"]}})
        pid = short.service.grammars.helper_pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_streams_go_on_while_large_grammars_compile(served: Served) -> None:
    """A schema that takes a tenth of a second or more; whoever streams meanwhile gets the usual text."""
    large = {"enum": [f"value {number}" for number in range(8000)]}
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 40}
    alone = served.openai().chat.completions.create(model=NAME, messages=ASK, **fields)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": large}}
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(chat, served, response_format=form, seed=seed) for seed in range(3)]
        stream = served.openai().chat.completions.create(model=NAME, messages=ASK, stream=True, **fields)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == alone.choices[0].message.content
    assert all(json.loads(other.result()) in large["enum"] for other in others)


def test_a_request_that_is_dropped_while_its_grammar_compiles_leaves_nothing(served: Served) -> None:
    form = {"structured_outputs": {"choice": [f"choice {number} of many" for number in range(4000)]}}
    body = {"messages": ASK, "stream": True, **form}
    for _ in range(3):
        with served.http.stream("POST", "/v1/chat/completions", json=body):
            pass
    assert served.until(lambda: served.service.gate.under_way == 0)
    free, total = served.free_blocks()
    assert free == total
