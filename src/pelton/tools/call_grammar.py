"""Grammars of calls: for answers that must be calls, and for text in which what begins as a call is one."""

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
    """The answer is calls and nothing else, in llguidance's Lark.

    `control` has the ids of markers that are control tokens. `instead` is the JSON schema of a text that may
    stand in place of calls. Raises RequestError where the schemas together are too large.
    """
    rules = _calls(use, form, control)
    rules.append(f"start: calls{'' if instead is None else ' | text'}")
    if instead is not None:
        rules.append(f"text: %json {instead}")
    return StructuredOutputs(grammar="\n".join(rules))


def free_grammar(use: ToolUse, form: CallForm, trigger: str, control: Mapping[str, int]) -> StructuredOutputs:
    """The answer is any text, but where `trigger` occurs in it calls follow.

    `trigger` is what the form begins with. Raises RequestError as call_grammar does.
    """
    rest = CallForm(form.opening.removeprefix(trigger), form.between, form.closing, form.separator)
    if form.prefix:
        rest = CallForm(
            form.opening,
            form.between,
            form.closing,
            form.separator,
            form.prefix.removeprefix(trigger),
            form.suffix,
        )
    rules = _calls(use, rest, control, is_one=not form.prefix)
    rules.append("start: (head calls)* TEXT")
    rules.append("TEXT: /(.|\\n)*/")
    if trigger in control:
        rules.append(f"head: TEXT {_spelled(trigger, control)}")
    else:
        rules.append(f"head[lazy]: TEXT {_spelled(trigger, control)}")
    return StructuredOutputs(grammar="\n".join(rules))


def _calls(use: ToolUse, form: CallForm, control: Mapping[str, int], *, is_one: bool = False) -> list[str]:
    """The rules of `calls`; of one call where several are not wanted."""
    rules = []
    for number, tool in enumerate(use.callable):
        schema = {**json.loads(tool.parameters), "x-guidance": _LAYOUT}
        opening = _spelled(form.opening + tool.name + form.between, control)
        rules.append(f"call_{number}: {opening} args_{number} {_spelled(form.closing, control)}")
        rules.append(f"args_{number}: %json {json.dumps(schema, ensure_ascii=False)}")
    more = ""
    if use.parallel and not is_one:
        more = f" ({_spelled(form.separator, control)} call){{0,{MOST_CALLS - 1}}}"
    rules.append(f"call: {' | '.join(f'call_{number}' for number in range(len(use.callable)))}")
    rules.append(f"calls: {_spelled(form.prefix, control)} call{more} {_spelled(form.suffix, control)}")
    return rules


def _spelled(text: str, control: Mapping[str, int]) -> str:
    """A literal in Lark, with control tokens by their ids."""
    marker = next((marker for marker in control if marker in text), None)
    if marker is not None:
        before, _, after = text.partition(marker)
        return f"{_spelled(before, control)} <[{control[marker]}]> {_spelled(after, control)}".strip()
    return json.dumps(text, ensure_ascii=False) if text else ""
