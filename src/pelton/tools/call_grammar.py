"""Grammars that make a model call: one or more calls in its dialect, each with arguments of its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..structured import StructuredOutputs
from .definitions import ToolUse
from .form import CallForm

MOST_CALLS = 16
"""Of one answer; without a bound a model could go on calling for ever."""
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def call_grammar(
    use: ToolUse, form: CallForm, control: Mapping[str, int], instead: str | None = None
) -> StructuredOutputs:
    """The grammar of `use` in llguidance's Lark. `control` has the ids of markers that are control tokens.

    `instead` is the JSON schema of a text that may stand in place of calls. Raises RequestError where the
    schemas together are too large.
    """
    rules = []
    names = []
    for number, tool in enumerate(use.callable):
        schema = {**json.loads(tool.parameters), "x-guidance": _LAYOUT}
        names.append(f"call_{number}")
        opening = _spelled(form.opening + tool.name + form.between, control)
        closing = _spelled(form.closing, control)
        rules.append(f"call_{number}: {opening} args_{number} {closing}")
        rules.append(f"args_{number}: %json {json.dumps(schema, ensure_ascii=False)}")
    more = f" ({_spelled(form.separator, control)} call){{0,{MOST_CALLS - 1}}}" if use.parallel else ""
    prefix, suffix = _spelled(form.prefix, control), _spelled(form.suffix, control)
    rules.append(f"start: calls{'' if instead is None else ' | text'}")
    rules.append(f"calls: {prefix} call{more} {suffix}")
    rules.append(f"call: {' | '.join(names)}")
    if instead is not None:
        rules.append(f"text: %json {instead}")
    return StructuredOutputs(grammar="\n".join(rules))


def _spelled(text: str, control: Mapping[str, int]) -> str:
    """A literal in Lark, with control tokens by their ids."""
    marker = next((marker for marker in control if marker in text), None)
    if marker is not None:
        before, _, after = text.partition(marker)
        return f"{_spelled(before, control)} <[{control[marker]}]> {_spelled(after, control)}".strip()
    return json.dumps(text, ensure_ascii=False) if text else ""
