"""Which way of writing calls a model was trained for, told from its chat template."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigError
from . import hermes, llama3, mistral
from .calls import ToolParser
from .form import HERMES, LLAMA3, MISTRAL_LIST, MISTRAL_NAMED, CallForm


@dataclass(frozen=True)
class Dialect:
    """`parser` reads what a model writes by itself; `form` is what it is made to write where it must call.

    `trigger` begins a call in the middle of text; None: calls only begin an answer.
    `markers` are strings that may be control tokens of the model, and are then not left out of its text.
    """

    name: str
    parser: Callable[[frozenset[str]], ToolParser]
    form: CallForm
    trigger: str | None
    markers: tuple[str, ...]
    has_short_ids: bool = False

    def new_id(self) -> str:
        """An id for a call; some templates take only 9 letters and digits."""
        return secrets.token_hex(5)[:9] if self.has_short_ids else f"call_{secrets.token_hex(12)}"


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("hermes", hermes.HermesParser, HERMES, hermes.OPENING, (hermes.OPENING, hermes.CLOSING)),
        Dialect("llama3_json", llama3.Llama3Parser, LLAMA3, None, (llama3.TAG,)),
        Dialect("mistral", mistral.MistralParser, MISTRAL_LIST, mistral.OPENING, (mistral.OPENING,), True),
        Dialect(
            "mistral_named",
            mistral.MistralParser,
            MISTRAL_NAMED,
            mistral.OPENING,
            (mistral.OPENING, mistral.CALL_ID, mistral.ARGUMENTS),
            True,
        ),
    )
}


def dialect_named(name: str) -> Dialect:
    """Raises ConfigError listing those there are."""
    if name not in DIALECTS:
        raise ConfigError(f"must be one of {', '.join(DIALECTS)}", field="tool_call_parser", value=name)
    return DIALECTS[name]


def dialect_of(template: str | None) -> Dialect:
    """The dialect whose marks a chat template writes; Hermes where it has none, since that is told in the
    preamble."""
    if template is not None:
        if mistral.OPENING in template:
            return DIALECTS["mistral_named" if mistral.ARGUMENTS in template else "mistral"]
        if hermes.OPENING in template:
            return DIALECTS["hermes"]
        if llama3.TAG in template or ("ipython" in template and '"parameters"' in template):
            return DIALECTS["llama3_json"]
    return DIALECTS["hermes"]
