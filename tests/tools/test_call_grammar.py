"""Grammars of calls: what is written under them is read back as calls of the schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest

from pelton.decode.grammar import GrammarCompiler, GrammarVocabulary, token_ids
from pelton.structured import StructuredOutputs
from pelton.tools.call_grammar import MOST_CALLS, call_grammar, free_grammar
from pelton.tools.calls import CallDelta, TextDelta
from pelton.tools.definitions import ToolDefinition, ToolUse
from pelton.tools.dialects import DIALECTS
from pelton.tools.form import FormParser

SCHEMAS: dict[str, dict[str, Any]] = {
    "add": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"enum": ["x", "y}"]}},
        "required": ["a"],
        "additionalProperties": False,
    },
    "now": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = tuple(ToolDefinition.of(name, None, schema) for name, schema in SCHEMAS.items())
MARKS = ("[TOOL_CALLS]", "<tool_call>", "</tool_call>", "[ARGS]")
END = 1
# Control tokens in front, then a newline and printable ASCII.
VOCABULARY = GrammarVocabulary(
    tokens=(
        b"<start>",
        b"<end>",
        *(mark.encode() for mark in MARKS),
        b"\n",
        *(bytes([32 + i]) for i in range(95)),
    ),
    control=tuple(range(6)),
    end=(END,),
    size=102,
)
COMPILER = GrammarCompiler(VOCABULARY)
CONTROL = {mark: 2 + index for index, mark in enumerate(MARKS)}


def write(use: ToolUse, dialect: str, control: dict[str, int], seed: int, instead: str | None = None) -> str:
    """A text drawn at random under the grammar of calls."""
    return drawn(call_grammar(use, DIALECTS[dialect].form, control, instead), control, seed)


def drawn(grammar: StructuredOutputs, control: dict[str, int], seed: int, start: str = "") -> str:
    """A text drawn at random that begins with `start`."""
    state = COMPILER.compile(grammar).start()
    random = np.random.default_rng(seed)
    text = ""
    for token in spelled(start, control):
        assert state.allowed()[token]
        text += VOCABULARY.tokens[token].decode()
        state.push(token)
    while True:
        allowed = token_ids(state.allowed())
        token = END if END in allowed and random.random() < 0.5 else int(random.choice(allowed))
        if token == END:
            return text
        assert token > 5 or token in control.values()
        text += VOCABULARY.tokens[token].decode()
        state.push(token)


def spelled(text: str, control: dict[str, int]) -> list[int]:
    """Single characters, and marks that are control tokens as those."""
    for mark, token in control.items():
        if mark in text:
            before, _, after = text.partition(mark)
            return [*spelled(before, control), token, *spelled(after, control)]
    return [6 if character == "\n" else 7 + ord(character) - 32 for character in text]


def read(text: str, dialect: str) -> tuple[str, list[list[str]]]:
    parser = FormParser(DIALECTS[dialect].form)
    calls: list[list[str]] = []
    plain = ""
    for delta in [*parser.feed(text), *parser.finish()]:
        if isinstance(delta, TextDelta):
            plain += delta.text
        elif isinstance(delta, CallDelta) and delta.name is not None:
            calls.append([delta.name, delta.arguments])
    return plain, calls


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("is_control", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_what_is_written_is_read_by_both_parsers(dialect: str, is_control: bool, parallel: bool) -> None:
    markers = DIALECTS[dialect].markers
    control = {mark: CONTROL[mark] for mark in markers if mark in CONTROL} if is_control else {}
    use = ToolUse(TOOLS, must_call=True, parallel=parallel)
    counts = set()
    for seed in range(25):
        text = write(use, dialect, control, seed)
        plain, calls = read(text, dialect)
        assert not plain
        assert 1 <= len(calls) <= (MOST_CALLS if parallel else 1)
        counts.add(len(calls))
        for name, arguments in calls:
            jsonschema.validate(json.loads(arguments), SCHEMAS[name])
        free = DIALECTS[dialect].parser(use.names)
        found = [delta for delta in [*free.feed(text), *free.finish()] if isinstance(delta, CallDelta)]
        assert [(d.name, json.loads(d.arguments)) for d in found] == [(n, json.loads(a)) for n, a in calls]
    assert (len(counts) > 1) == parallel


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_tool_alone(dialect: str) -> None:
    use = ToolUse(TOOLS, must_call=True, only="now", parallel=False)
    assert read(write(use, dialect, {}, 3), dialect) == ("", [["now", "{}"]])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_json_instead_of_calls(dialect: str) -> None:
    schema = '{"type":"array","items":{"enum":[1,2]},"maxItems":3}'
    use = ToolUse(TOOLS)
    texts = [write(use, dialect, {}, seed, schema) for seed in range(30)]
    found = [read(text, dialect) for text in texts]
    assert any(calls for _, calls in found)
    plain = [text for text, calls in found if not calls]
    assert plain
    assert all(isinstance(json.loads(text), list) for text in plain)


def test_a_schema_of_the_clients_cannot_change_the_layout() -> None:
    loose = {
        "type": "object",
        "properties": {"a": {"const": 1}},
        "required": ["a"],
        "x-guidance": {"whitespace_flexible": True},
    }
    tool = ToolDefinition.of("f", None, {**loose, "additionalProperties": False})
    use = ToolUse((tool,), must_call=True, parallel=False)
    assert write(use, "hermes", {}, 0) == '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize("dialect", ["hermes", "mistral", "mistral_named"])
@pytest.mark.parametrize("is_control", [False, True])
def test_strict_tools_are_called_rightly_wherever_a_call_begins(dialect: str, is_control: bool) -> None:
    used = DIALECTS[dialect]
    assert used.trigger is not None
    control = {mark: CONTROL[mark] for mark in used.markers if mark in CONTROL} if is_control else {}
    use = ToolUse(TOOLS)
    grammar = free_grammar(use, used.form, used.trigger, control)
    state = COMPILER.compile(grammar).start()
    assert state.allowed()[END]
    found = 0
    for seed in range(15):
        start = f"Let me <see> [it]. {used.trigger}"
        text = drawn(grammar, control, seed, start)
        parser = used.parser(use.names)
        calls = [delta for delta in [*parser.feed(text), *parser.finish()] if isinstance(delta, CallDelta)]
        assert len(calls) >= text.count(used.trigger)
        for call in calls:
            assert call.name is not None
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
        found += len(calls)
    assert found > 5
