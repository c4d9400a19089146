"""Grammars meant to hurt: those that have hurt servers, and mutations of ordinary ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from pelton.errors import RequestError
from pelton.structured import StructuredOutputs

Source = random.Random

_REGEXES = (
    *("(a*)*b", "(a|a)*c", "(a|ab|abb){1,200}", "((a+)+)+$", "^?", "^", "$^", "()*", "(|a)+", "[^\\s\\S]"),
    *(
        "a{0}",
        "a{1000000000}",
        "(a{1000}){1000}",
        "(?i)(straße)+",
        "\\p{L}*\\p{N}*",
        ".*.*.*.*.*=.*",
        "[]",
        "[z-a]",
    ),
    *(
        "(.*a){30}b",
        "(a|b)*a(a|b){40}",
        "\\1",
        "(?=x)",
        "(?<!x)y",
        "\\b",
        "x**",
        "*",
        "(?P<a",
        "\\u{110000}",
        "\\",
    ),
)
_SCHEMAS: tuple[object, ...] = (
    {"$ref": "#"},
    {"$ref": "#/$defs/x"},
    {"$ref": "http://example.com/schema.json"},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"type": "array", "minItems": 10**9},
    {"type": "array", "items": {"type": "array", "minItems": 500, "maxItems": 1000}, "maxItems": 1000},
    {"type": "string", "minLength": 10**9},
    {"type": "string", "pattern": "((a{1,100}){1,100}){1,100}"},
    {"type": "string", "format": "nonsense"},
    {"type": "integer", "minimum": -(10**300), "maximum": 10**300},
    {"type": "number", "multipleOf": 1e-300},
    {"type": "integer", "minimum": 5, "maximum": 1},
    {"enum": []},
    {"enum": [f"value {i}" for i in range(5000)]},
    {"const": {"a": {"b": {"c": [1, 2, 3]}}}},
    {"type": ["string", "nonsense"]},
    {"type": 5},
    {"allOf": [{"anyOf": [{"minLength": i}, {"maxLength": i}]} for i in range(20)]},
    {"oneOf": [{"properties": {f"p{i}": {"const": i}}, "required": [f"p{i}"]} for i in range(300)]},
    {"not": {}},
    {"if": {}, "then": {}, "else": {}},
    {"type": "object", "patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
    {"type": "object", "required": [f"r{i}" for i in range(1000)]},
    {"type": "object", "minProperties": 10**9},
)
_GRAMMARS = (
    "start: start",
    "start: start start | start | ",
    "start: a\na: b\nb: a",
    'root ::= root "a" | "a"',
    'root ::= ("a"*)*',
    'root ::= "a"{1000000}',
    "root ::= [^]",
    'start: "a"~1..100000',
    "start: /(/",
    "start: <[0-95]>*",
    "start: <|nonsense|>",
    'start: %json {"type": "object"',
    "%ignore /.*/\nstart: /a/",
    "%import common.INT\nstart: INT",
    'start: A0\nA0: A1 A1\nA1: A2 A2\nA2: "x"',
    "start[max_tokens=0]: /.*/",
    'start[capture="x", temperature=1e308]: /.*/',
    'start: @other\n%llguidance {"x": 1}',
    "\x00",
    "::= ::= ::=",
    "start: " + "(" * 3000,
    'root ::= "\\x"',
)


def hostile(source: Source) -> StructuredOutputs:
    """A grammar that passes the checks of its size but may be anything else."""
    while True:
        try:
            return source.choice(_MAKERS)(source)
        except RequestError:  # refused by size or form already: no work for a compiler
            continue


def _regex(source: Source) -> StructuredOutputs:
    text = source.choice(_REGEXES)
    return StructuredOutputs(regex=_grown(source, text))


def _schema(source: Source) -> StructuredOutputs:
    schema = source.choice(_SCHEMAS)
    for _ in range(source.choice((0, 0, 1, 5, 40))):
        schema = source.choice(_WRAPPERS)(schema)
    text = json.dumps(schema)
    return StructuredOutputs(json=text if source.random() < 0.6 else _mutated(source, text))


_WRAPPERS: tuple[Callable[[object], object], ...] = (
    lambda inner: {"type": "array", "items": inner},
    lambda inner: {"type": "object", "properties": {"a": inner}, "required": ["a"]},
    lambda inner: {"anyOf": [inner, {"type": "null"}, inner]},
    lambda inner: {"allOf": [inner]},
)


def _grammar(source: Source) -> StructuredOutputs:
    return StructuredOutputs(grammar=_grown(source, source.choice(_GRAMMARS)))


def _rules(source: Source) -> StructuredOutputs:
    """Random rules that refer to each other."""
    count = source.choice((2, 5, 30, 300))
    lines = []
    for number in range(count):
        name = "start" if number == 0 else f"r{number}"
        parts = [_part(source, count) for _ in range(source.randint(1, 4))]
        lines.append(f"{name}: {source.choice((' ', ' | ')).join(parts)}")
    return StructuredOutputs(grammar="\n".join(lines))


def _part(source: Source, count: int) -> str:
    rule = f"r{source.randrange(1, count)}"
    return source.choice((rule, f"{rule}*", f"{rule}{{2,9}}", '"a"', "/[a-z]+/", f"({rule} | {rule})?"))


def _choice(source: Source) -> StructuredOutputs:
    letters = 'ab"\\\n\t\x00 é\U0001f600/'
    count = source.choice((1, 2, 50, 1000))
    return StructuredOutputs(
        choice=["".join(source.choices(letters, k=source.randint(1, 12))) for _ in range(count)]
    )


def _grown(source: Source, text: str) -> str:
    kind = source.randrange(4)
    if kind == 0:
        return text
    if kind == 1:
        return _mutated(source, text)
    if kind == 2:
        return text * source.choice((2, 10, 100))
    depth = source.choice((3, 30, 300, 3000))
    return "(" * depth + text + ")*" * depth


def _mutated(source: Source, text: str) -> str:
    letters = list(text)
    for _ in range(source.choice((1, 2, 8))):
        at = source.randrange(len(letters) + 1)
        letters[at : at + source.randrange(3)] = source.choice(
            ("", "(", "*", '"', "\\", "{9999}", "[", "é", "$", "\n", "0")
        )
    return "".join(letters)


_MAKERS = (_regex, _schema, _grammar, _rules, _choice)
