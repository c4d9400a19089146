"""Text and conversations -> token ids, off the event loop: a long prompt must not hold up other streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TypedDict

from ...errors import ContextOverflowError, RequestError, TemplateError
from ...text import ChatTemplate, Tokenizer
from ...tools.definitions import ToolDefinition
from ...tools.dialects import DIALECTS, Dialect, dialect_named, dialect_of
from ...tools.rendering import for_plain_template, for_tool_template
from ..http.failures import renamed

_LONGEST_CHARACTER = 4
"""Bytes in UTF-8."""


class Prompts:
    """A model's tokenizer and chat template; both are safe to share between threads.

    `dialect` is how the model writes calls of tools: `tool_call_parser` if given, else what its template
    shows. Raises ConfigError for an unknown name.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        template: ChatTemplate | TemplateError | None,
        tool_call_parser: str | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self.dialect = _dialect(template) if tool_call_parser is None else dialect_named(tool_call_parser)

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise RequestError("this model has no tokenizer; give token ids", field="prompt")
        return self._tokenizer

    async def encode(
        self, text: str, *, add_special: bool = True, field: str = "prompt", room: int | None = None
    ) -> list[int]:
        """Token ids of a text; special tokens spelled out in it stay text. Raises RequestError, and
        ContextOverflowError early where there are sure to be more than `room`."""
        tokenizer = self.tokenizer

        def work() -> list[int]:
            _check_room(tokenizer, text, room, field)
            return tokenizer.encode(text, add_special=add_special)

        try:
            return await asyncio.to_thread(work)
        except RequestError as error:
            raise renamed(error, field) from None

    async def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        options: Mapping[str, object] | None = None,
        tools: Sequence[ToolDefinition] = (),
        room: int | None = None,
    ) -> list[int]:
        """Token ids of a conversation. Raises RequestError, or TemplateError where there is no template.

        Tools are told through the template where it knows them, else in a system message. `room`: as in
        `encode`.
        """
        template, tokenizer = self._template, self._tokenizer
        if isinstance(template, TemplateError):
            raise template
        if template is None or tokenizer is None:
            raise TemplateError("this model has no chat template; use /v1/completions", field="messages")
        messages, told = await asyncio.to_thread(_written, template, messages, tools)
        form: _Form = {
            "tools": told,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "options": options,
        }

        def work() -> list[int]:
            if room is not None and _is_long([messages, told], room):
                _check_room(tokenizer, template.render(messages, **form), room, "messages")
            return template.encode(tokenizer, messages, **form)

        return await asyncio.to_thread(work)

    async def decode(self, tokens: Sequence[int]) -> str:
        return await asyncio.to_thread(self.tokenizer.decode, tokens, skip_special=False)


def _written(
    template: ChatTemplate, messages: Sequence[Mapping[str, object]], tools: Sequence[ToolDefinition]
) -> tuple[Sequence[Mapping[str, object]], list[dict[str, object]] | None]:
    """Messages and tools as the template takes them."""
    if template.takes_tools:
        return for_tool_template(messages), [tool.for_template() for tool in tools] or None
    return for_plain_template(messages, tools), None


class _Form(TypedDict):
    """What a conversation is rendered with."""

    tools: Sequence[Mapping[str, object]] | None
    add_generation_prompt: bool
    continue_final_message: bool
    options: Mapping[str, object] | None


def _is_long(given: Sequence[object], room: int) -> bool:
    """Whether what a template is given may make more than `room` tokens: a token is a byte at least."""
    return len(json.dumps(given, ensure_ascii=True, default=str)) > room


def _check_room(tokenizer: Tokenizer, text: str, room: int | None, field: str) -> None:
    """Raises ContextOverflowError where the text is sure to have more tokens than there is room for."""
    if room is None or len(text) * _LONGEST_CHARACTER <= room:
        return
    least = tokenizer.least_tokens(text)
    if least > room:
        raise ContextOverflowError(
            f"at least {least} prompt tokens do not fit the context of {room}", field=field
        )


def _dialect(template: ChatTemplate | TemplateError | None) -> Dialect:
    if isinstance(template, ChatTemplate) and template.takes_tools:
        return dialect_of(template.source)
    return DIALECTS["hermes"]  # which the preamble asks for
