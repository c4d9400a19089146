"""Tool parsers: what they find, that pieces add up, that nothing makes them raise or slow."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pelton.tools
from pelton.tools.calls import CallDelta, Delta, TextDelta, ToolParser
from pelton.tools.dialects import DIALECTS
from pelton.tools.form import FormParser

from ..fuzz.tool_outputs import OUTPUTS, mutated

NAMES = frozenset({"get_weather", "f"})
Make = Callable[[], ToolParser]
PARSERS: dict[str, Make] = {
    **{name: lambda made=dialect: made.parser(NAMES) for name, dialect in DIALECTS.items()},  # type: ignore[misc]
    **{f"form {name}": lambda form=dialect.form: FormParser(form) for name, dialect in DIALECTS.items()},  # type: ignore[misc]
}
Found = tuple[str, list[tuple[str | None, str]]]


def sum_of(deltas: list[Delta]) -> Found:
    """The text and the calls that deltas add up to."""
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    calls: list[tuple[str | None, str]] = []
    for delta in deltas:
        if isinstance(delta, CallDelta):
            if delta.name is not None:
                assert delta.index == len(calls)
                calls.append((delta.name, delta.arguments))
            else:
                assert delta.index == len(calls) - 1
                calls[-1] = (calls[-1][0], calls[-1][1] + delta.arguments)
    return text, calls


def parsed(make: Make, *pieces: str) -> Found:
    parser = make()
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return sum_of(deltas + parser.finish())


PARIS = ("get_weather", '{"city": "Paris"}')


@pytest.mark.parametrize(
    ("dialect", "output", "text", "calls"),
    [
        ("hermes", OUTPUTS[0], "", [PARIS]),
        ("hermes", OUTPUTS[1], "I look.\nDone.", [("f", '{"x": [1, {"y": "}"}]}'), ("get_weather", "{}")]),
        ("hermes", OUTPUTS[8], "", [("f", '{"x": 1}')]),
        ("hermes", OUTPUTS[6], OUTPUTS[6], []),
        ("hermes", '<tool_call>{"name": "other", "arguments": {}}</tool_call>', None, []),
        ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1}\n</tool_call>', None, []),
        ("hermes", '<tool_call>{"name": "f"', None, []),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}', "", [("f", "{}")]),
        ("hermes", '<tool_call> <tool_call>{"name": "f"}</tool_call>', "<tool_call>", [("f", "{}")]),
        ("hermes", "a <tool_cal", "a <tool_cal", []),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"x": NaN}}', None, []),
        ("hermes", "  spaced  ", "  spaced  ", []),
        ("llama3_json", OUTPUTS[2], "", [("get_weather", '{"city": "Köln \\"x\\"", "days": -1500.0}')]),
        ("llama3_json", OUTPUTS[3], "", [("f", '{"a": null}'), ("f", '{"a": true}')]),
        ("llama3_json", OUTPUTS[7], OUTPUTS[7], []),
        ("llama3_json", '{"name": "other", "parameters": {}}', '{"name": "other", "parameters": {}}', []),
        ("llama3_json", '{"name": "f", "arguments": {}}', "", [("f", "{}")]),
        ("llama3_json", '{"name": "f", "parameters": {}} and more', " and more", [("f", "{}")]),
        ("llama3_json", "<|python_tag|>print(1)", "<|python_tag|>print(1)", []),
        ("llama3_json", "", "", []),
        ("mistral", OUTPUTS[4], "", [("f", '{"x": 1}'), ("get_weather", '{"city": "a]b"}')]),
        ("mistral", OUTPUTS[5], "Sure:", [PARIS, ("f", '{"x": "\U0001f600"}')]),
        ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "g"}]', None, []),
        ("mistral", "[TOOL_CALLS][]", "[TOOL_CALLS][]", []),
        ("mistral", "[TOOL_CALLS]what is {this}", None, []),
        ("mistral_named", "[TOOL_CALLS]f[ARGS]{}", "", [("f", "{}")]),
        ("form hermes", OUTPUTS[0], "", [PARIS]),
        ("form hermes", OUTPUTS[0][: OUTPUTS[0].index(': "Paris')], "", [("get_weather", '{"city"')]),
        ("form hermes", OUTPUTS[0][:20], OUTPUTS[0][:20], []),
        ("form llama3_json", OUTPUTS[3][14:], "", [("f", '{"a": null}'), ("f", '{"a": true}')]),
        ("form mistral", OUTPUTS[4], "", [("f", '{"x": 1}'), ("get_weather", '{"city": "a]b"}')]),
        ("form mistral_named", "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]f[ARGS]{}", "", [("f", "{}"), ("f", "{}")]),
    ],
)
def test_what_is_found(dialect: str, output: str, text: str | None, calls: list[tuple[str, str]]) -> None:
    """`text` None: all of it is text."""
    assert parsed(PARSERS[dialect], output) == (output if text is None else text, calls)


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_cut_at_every_character_the_pieces_add_up(name: str, output: str) -> None:
    make = PARSERS[name]
    whole = parsed(make, output)
    assert parsed(make, *output) == whole
    for cut in range(len(output)):
        assert parsed(make, output[:cut], output[cut:]) == whole


@pytest.mark.parametrize(
    ("count", "cuts"), [(20_000, 40), pytest.param(1_000_000, 40, marks=pytest.mark.fuzz, id="long")]
)
def test_mutated_outputs_never_raise_and_pieces_add_up(count: int, cuts: int) -> None:
    """Reliability 26; every `cuts`-th is also cut at every character."""
    source = random.Random(26)
    kept = list(PARSERS.items())
    calls_found = 0
    for number in range(count):
        name, make = kept[number % len(kept)]
        output = mutated(source)
        whole = parsed(make, output)
        at = source.randrange(len(output) + 1)
        assert parsed(make, output[:at], output[at:]) == whole
        if number % cuts == 0:
            assert parsed(make, *output) == whole
        if not name.startswith("form"):
            check(output, whole)
        calls_found += len(whole[1])
    assert calls_found > count / 10


def check(output: str, found: Found) -> None:
    """Calls name tools and have objects for arguments; without calls all of the output is text."""
    text, calls = found
    for name, arguments in calls:
        assert name in NAMES
        assert isinstance(json.loads(arguments), dict)
        arguments.encode()
    if not calls:
        assert text == output


@given(
    pieces=st.lists(st.text(alphabet='<tool_cal>/{}[]":,\\ nf1;|TOOLCALS\n')),
    name=st.sampled_from(sorted(PARSERS)),
)
@settings(max_examples=200)
def test_any_text_in_any_pieces(pieces: list[str], name: str) -> None:
    found = parsed(PARSERS[name], *pieces)
    assert found == parsed(PARSERS[name], "".join(pieces))
    if not name.startswith("form"):
        check("".join(pieces), found)


GROWING: tuple[Callable[[int], str], ...] = (
    lambda n: "<tool_call>" * n,
    lambda n: '<tool_call>{"name": "f", "arguments": {' * n,
    lambda n: '<tool_call>{"name": "f", "arguments": {"x": "' + "a" * n,
    lambda n: '<tool_call>{"name": "f", "arguments": {}}</tool_call>' * n,
    lambda n: "<" * n,
    lambda n: " " * n,
    lambda n: "<tool_call>" + " " * n,
    lambda n: "{" * n,
    lambda n: '{"name": "f", "parameters": {}};' * n,
    lambda n: "[TOOL_CALLS]" * n,
    lambda n: "[TOOL_CALLS]" + "a" * n,
    lambda n: "[TOOL_CALLS]" + "[" * n,
    lambda n: "[TOOL_CALLS]f{}" * n,
    lambda n: "[TOOL_CALLS][" + '{"name": "f"},' * n,
    lambda n: ('<tool_call>{"a": ' + "[" * 60) * n,
)


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("grow", GROWING)
def test_work_grows_with_the_text_and_no_faster(name: str, grow: Callable[[int], str]) -> None:
    """Counted, not timed: twice the text takes at most 2.2 times the steps, and each step is bounded."""

    def steps(count: int) -> int:
        parser = PARSERS[name]()
        for character in grow(count):
            parser.feed(character)
        parser.finish()
        return parser.steps

    small, large = steps(500), steps(1000)
    assert large <= 2.2 * small + 50
    assert large <= 5 * len(grow(1000)) + 50


def test_no_parser_uses_regular_expressions_or_runs_text() -> None:
    """No `re`, whose matching can take exponential time; eval and its kin are forbidden everywhere."""
    for path in Path(pelton.tools.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"re", "regex"}, path
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("re", "regex"), path
