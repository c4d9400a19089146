"""A request's structured output -> the text that the grammar library compiles."""

from __future__ import annotations

import json

from ..errors import ConfigError, RequestError
from ..structured import ANY_OBJECT, SUBJECT, StructuredOutputs

LONGEST_REASON = 400


def grammar_source(wanted: StructuredOutputs) -> str:
    """llguidance's own JSON form of the grammar.

    Raises RequestError naming the field for a GBNF grammar that does not parse, ConfigError where the
    library is missing.
    """
    try:
        from llguidance import LLMatcher, regex_to_lark
        from llguidance.gbnf_to_lark import any_to_lark
    except ModuleNotFoundError:
        raise ConfigError(
            "needs llguidance, which `pip install 'pelton[structured]'` brings", field=SUBJECT
        ) from None

    if wanted.regex is not None:
        return LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(wanted.regex, use_ascii='dws')}/")
    if wanted.choice:
        quoted = [json.dumps(text, ensure_ascii=False) for text in wanted.choice]
        return LLMatcher.grammar_from_lark("start: " + " | ".join(quoted))
    if wanted.grammar is not None:
        try:
            return LLMatcher.grammar_from_lark(any_to_lark(wanted.grammar))
        except Exception as error:  # the library's converter fails in ways of its own
            raise refusal("grammar", str(error)) from None
    if wanted.json_object:
        schema = ANY_OBJECT
    else:
        assert isinstance(wanted.json, str)
        schema = wanted.json
    if wanted.disable_any_whitespace:
        return LLMatcher.grammar_from_json_schema(
            schema, overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        )
    return LLMatcher.grammar_from_json_schema(schema)


def refusal(kind: str, reason: str) -> RequestError:
    """The error for a grammar that the library does not take; only the first lines of its reason."""
    if reason.startswith("NoExtension"):  # how the library says so, at the first mask
        reason = "no text matches it"
    text = " ".join(reason.replace("<non-verbose/>", "").split())
    text = text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."
    return RequestError(text or "is refused by the grammar compiler", subject=SUBJECT, field=kind)
