"""A request's structured output -> the text that the grammar library compiles."""

from __future__ import annotations

import json

from ..errors import ConfigError, RequestError
from ..structured import ANY_OBJECT, SUBJECT, StructuredOutputs

LONGEST_REASON = 400
UNFORCED = '\n%llguidance {"no_forcing": true}\n'
"""Else, where only one text can follow, the library allows the one token that it cuts from that text, and a
wrong one where the vocabulary cannot spell it. Masks take no longer for it: 17 us with, 20 without."""
STRICT_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def grammar_source(wanted: StructuredOutputs) -> str:
    """The grammar in llguidance's dialect of Lark.

    Raises RequestError naming the field for a GBNF grammar that does not parse, ConfigError where the
    library is missing.
    """
    try:
        from llguidance import regex_to_lark
        from llguidance.gbnf_to_lark import any_to_lark
    except ModuleNotFoundError:
        raise ConfigError(
            "needs llguidance, which `pip install 'pelton[structured]'` brings", field=SUBJECT
        ) from None

    if wanted.regex is not None:
        source = f"start: /{regex_to_lark(wanted.regex, use_ascii='dws')}/"
    elif wanted.choice:
        source = "start: " + " | ".join(_quoted(text) for text in wanted.choice)
    elif wanted.grammar is not None:
        try:
            source = any_to_lark(wanted.grammar)
        except Exception as error:  # the library's converter fails in ways of its own
            raise refusal("grammar", str(error)) from None
    else:
        source = "start: %json " + _schema(wanted)
    return source + UNFORCED


def _quoted(text: str) -> str:
    """A string in Lark: as in JSON, but U+007F is taken only when escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def _schema(wanted: StructuredOutputs) -> str:
    assert wanted.json is None or isinstance(wanted.json, str)
    text = ANY_OBJECT if wanted.json is None else wanted.json
    if not wanted.disable_any_whitespace:
        return text
    schema = json.loads(text)
    given = schema.get("x-guidance")
    layout = STRICT_LAYOUT if not isinstance(given, dict) else {**given, **STRICT_LAYOUT}
    return json.dumps({**schema, "x-guidance": layout}, ensure_ascii=False)


def refusal(kind: str, reason: str) -> RequestError:
    """The error for a grammar that the library does not take; only the first lines of its reason."""
    if reason.startswith("NoExtension"):  # how the library says so, at the first mask
        reason = "no text matches it"
    own = UNFORCED.strip()  # the library shows the source around a mistake
    lines = [line for line in reason.replace("<non-verbose/>", "").splitlines() if own not in line]
    text = " ".join(" ".join(lines).split())
    text = text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."
    return RequestError(text or "is refused by the grammar compiler", subject=SUBJECT, field=kind)
