"""A vocabulary of characters and a few longer tokens, and forms of text with a way to tell them apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema

from pelton.decode.grammar import GrammarCompiler, GrammarVocabulary
from pelton.structured import StructuredOutputs

END = 95
VOCABULARY = GrammarVocabulary(
    tokens=(*(bytes([32 + i]) for i in range(95)), b"<end>"), control=(END,), end=(END,), size=96
)
"""Printable ASCII, one token a character: the 96 tokens of the tiny model."""
COMPILER = GrammarCompiler(VOCABULARY)


def text_of(tokens: Sequence[int]) -> str:
    return "".join(VOCABULARY.tokens[token].decode() for token in tokens if token != END)


def tokens_of(text: str) -> list[int]:
    return [ord(character) - 32 for character in text]


@dataclass(frozen=True)
class Form:
    """A structured output, and whether a text has that form according to someone else's code."""

    wanted: StructuredOutputs
    accepts: Callable[[str], bool]


def is_valid(schema: dict[str, Any], text: str) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def _schema(schema: dict[str, Any], *, strict: bool = True) -> Form:
    wanted = StructuredOutputs(json=schema, disable_any_whitespace=strict)
    return Form(wanted, lambda text: is_valid(schema, text))


def _regex(pattern: str) -> Form:
    return Form(
        StructuredOutputs(regex=pattern), lambda text: re.fullmatch(pattern, text, re.ASCII) is not None
    )


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
OPTIONAL = {
    "type": "object",
    "properties": {"x": {"type": "boolean"}, "y": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/color"}]}},
    "required": ["y"],
    "additionalProperties": False,
    "$defs": {"color": {"enum": ["red", "green"]}},
}
NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 12}, "maxItems": 4}
PATTERN = {"type": "string", "pattern": "^[a-c]{2,4}-[0-9]{3}$"}

FORMS = {
    "person": _schema(PERSON),
    "person with blanks": _schema(PERSON, strict=False),
    "optional": _schema(OPTIONAL),
    "numbers": _schema(NUMBERS),
    "pattern": _schema(PATTERN),
    "const": _schema({"const": {"a": [1, None, "x"]}}),
    "date": _regex(r"\d{4}-\d\d-\d\d"),
    "words": _regex(r"(?:\w{1,6} ){1,4}(?:end|stop)"),
    "choice": Form(
        StructuredOutputs(choice=["yes", "no", 'a "b" \\c', "yesterday"]),
        lambda text: text in ("yes", "no", 'a "b" \\c', "yesterday"),
    ),
    "gbnf": Form(
        StructuredOutputs(grammar='root ::= "<" item ("," item)* ">"\nitem ::= [0-9] | root'),
        lambda text: _balanced(text),
    ),
    "lark": Form(
        StructuredOutputs(grammar='start: "<" item ("," item)* ">"\nitem: /[0-9]/ | start'),
        lambda text: _balanced(text),
    ),
}


def _balanced(text: str) -> bool:
    """`<` items `>`, each a digit or such a list: read as JSON by changing its brackets."""
    if not re.fullmatch(r"[<>0-9,]+", text) or re.search(r"[0-9]{2}", text):
        return False
    try:
        value = json.loads(text.replace("<", "[").replace(">", "]"))
    except ValueError:
        return False
    return isinstance(value, list) and "[]" not in json.dumps(value)
