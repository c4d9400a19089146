"""Tools in conversations: through templates that know them, in plain text for those that do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pelton.errors import ConfigError, RequestError
from pelton.serve.answers.prompts import Prompts
from pelton.text import ChatTemplate
from pelton.tools.definitions import ToolDefinition, ToolUse
from pelton.tools.dialects import DIALECTS, dialect_named, dialect_of
from pelton.tools.rendering import for_plain_template, for_tool_template

ADD = ToolDefinition.of("add", "Adds.", {"properties": {"a": {"type": "integer"}}})
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1}'},
}
TALK: list[dict[str, object]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "2", "tool_call_id": "call_1"},
    {"role": "tool", "content": "3", "tool_call_id": "call_1"},
    {"role": "user", "content": "Thanks."},
]

QWEN = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}"
)
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def test_plain_templates_get_text_alone() -> None:
    messages = for_plain_template(TALK, [ADD])
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "user"]
    assert all(set(message) == {"role", "content"} for message in messages)
    system = str(messages[0]["content"])
    assert system.startswith("Be brief.\n\n")
    assert json.dumps(ADD.for_template()) in system
    written = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert messages[2]["content"] == f"{written}\n{written}"
    assert messages[3]["content"] == (
        "<tool_response>\n2\n</tool_response>\n<tool_response>\n3\n</tool_response>"
    )
    ChatTemplate(PLAIN).render(messages)


def test_a_preamble_stands_first_where_there_is_no_system_message() -> None:
    messages = for_plain_template(TALK[1:2], [ADD])
    assert [message["role"] for message in messages] == ["system", "user"]
    assert for_plain_template(TALK[1:2], ()) == TALK[1:2]


def test_tool_templates_get_arguments_as_values() -> None:
    template = ChatTemplate(QWEN)
    assert template.takes_tools
    assert not ChatTemplate(PLAIN).takes_tools
    text = template.render(for_tool_template(TALK), tools=[ADD.for_template()])
    assert '{"name": "add", "arguments": {"a": 1}}' in text
    assert '"description": "Adds."' in text


@pytest.mark.parametrize("arguments", ["not json", "[1]", "", None, 5])
def test_whatever_was_called_can_be_told(arguments: object) -> None:
    call = {**CALL, "function": {"name": "add", "arguments": arguments}}
    talk = [{"role": "assistant", "content": "x", "tool_calls": [call, "no call", {"function": 3}]}]
    for_plain_template(talk, [ADD])
    for_tool_template(talk)


@pytest.mark.parametrize(
    ("template", "dialect"),
    [
        (QWEN, "hermes"),
        ("{{ tools }}[TOOL_CALLS]", "mistral"),
        ("{{ tools }}[TOOL_CALLS]{{ name }}[ARGS]", "mistral_named"),
        ("{{ tools }}<|python_tag|>", "llama3_json"),
        ('{{ tools }}{"name": x, "parameters": y} ipython', "llama3_json"),
        ("{{ tools }}", "hermes"),
        (None, "hermes"),
    ],
)
def test_the_dialect_is_the_templates(template: str | None, dialect: str) -> None:
    assert dialect_of(template).name == dialect
    if template is not None:
        assert Prompts(None, ChatTemplate(template)).dialect.name == dialect
    assert Prompts(None, None, "mistral").dialect.name == "mistral"


def test_a_template_without_tools_is_answered_in_the_preambles_dialect() -> None:
    assert Prompts(None, ChatTemplate(PLAIN + "{# [TOOL_CALLS] #}")).dialect.name == "hermes"


def test_an_unknown_dialect_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="hermes, llama3_json"):
        dialect_named("pythonic")


def test_ids_are_new_each_time_and_short_where_they_must_be() -> None:
    for dialect in DIALECTS.values():
        ids = {dialect.new_id() for _ in range(50)}
        assert len(ids) == 50
        assert all((len(name) == 9) == dialect.has_short_ids for name in ids)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: ToolDefinition("a b"), "name"),
        (lambda: ToolDefinition(""), "name"),
        (lambda: ToolDefinition("a" * 65), "name"),
        (lambda: ToolDefinition("a", "x" * 20_000), "description"),
        (lambda: ToolDefinition.of("a", None, {"type": "string"}), "parameters"),
        (lambda: ToolDefinition.of("a", None, {"const": float("nan")}), "parameters"),
        (lambda: ToolUse(()), "tools"),
        (lambda: ToolUse((ADD, ADD)), "tools"),
        (lambda: ToolUse((ADD,), only="b"), "tool_choice"),
        (lambda: ToolUse(tuple(ToolDefinition(f"t{i}") for i in range(300))), "tools"),
    ],
)
def test_mistakes_name_their_field(make: Any, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        make()
    assert caught.value.field == field
