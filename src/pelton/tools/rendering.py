"""Tools and calls in a conversation, for templates that know them and for those that do not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from .calls import read_json
from .definitions import ToolDefinition

Message = Mapping[str, object]

PREAMBLE = """You can call the functions listed between <tools> and </tools>, each a JSON schema:
<tools>
{tools}
</tools>
To call one, answer with its name and arguments as JSON between tags, one pair of tags a call:
<tool_call>
{{"name": "the function's name", "arguments": {{"parameter": "value"}}}}
</tool_call>
Results come back between <tool_response> and </tool_response>."""
"""What a model is told whose chat template knows no tools: the Hermes dialect."""


def for_tool_template(messages: Sequence[Message]) -> list[Message]:
    """Arguments of calls as values, which templates write as JSON themselves; OpenAI's clients send text."""
    return [
        {**message, "tool_calls": [_with_values(call) for call in _calls(message)]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def for_plain_template(messages: Sequence[Message], tools: Sequence[ToolDefinition]) -> list[Message]:
    """The same conversation without tools and roles that the template does not know: definitions in the
    system message, calls in the assistant's text, results in the user's."""
    plain: list[Message] = []
    for message in messages:
        if message.get("role") == "tool":
            response = f"<tool_response>\n{_text(message.get('content'))}\n</tool_response>"
            if plain and plain[-1].get("tool_responses"):
                response = f"{plain.pop()['content']}\n{response}"
            plain.append({"role": "user", "content": response, "tool_responses": True})
        elif message.get("tool_calls"):
            written = [_written(call) for call in _calls(message)]
            content = _text(message.get("content"))
            plain.append({"role": message.get("role"), "content": "\n".join([content, *written]).lstrip()})
        else:
            plain.append(message)
    plain = [{key: value for key, value in message.items() if key != "tool_responses"} for message in plain]
    return _with_preamble(plain, tools) if tools else plain


def _with_preamble(messages: list[Message], tools: Sequence[ToolDefinition]) -> list[Message]:
    listed = "\n".join(json.dumps(tool.for_template(), ensure_ascii=False) for tool in tools)
    preamble = PREAMBLE.format(tools=listed)
    if messages and messages[0].get("role") in ("system", "developer"):
        first = messages[0]
        return [{**first, "content": f"{_text(first.get('content'))}\n\n{preamble}"}, *messages[1:]]
    return [{"role": "system", "content": preamble}, *messages]


def _calls(message: Message) -> list[object]:
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list) else []


def _with_values(call: object) -> object:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    value = read_json(function["arguments"] or "{}")
    if not isinstance(value, dict):  # what a model wrote may be anything: it stays as it was
        return call
    assert isinstance(call, dict)
    return {**call, "function": {**function, "arguments": value}}


def _written(call: object) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    value = read_json(arguments or "{}") if isinstance(arguments, str) else arguments
    said = {"name": function.get("name"), "arguments": arguments if value is None else value}
    return f"<tool_call>\n{json.dumps(said, ensure_ascii=False)}\n</tool_call>"


def _text(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
