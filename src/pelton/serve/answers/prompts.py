"""Text and conversations -> token ids, off the event loop: a long prompt must not hold up other streams."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from ...errors import RequestError, TemplateError
from ...text import ChatTemplate, Tokenizer
from ...tools.definitions import ToolDefinition
from ...tools.dialects import DIALECTS, Dialect, dialect_named, dialect_of
from ...tools.rendering import for_plain_template, for_tool_template
from ..http.failures import renamed


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

    async def encode(self, text: str, *, add_special: bool = True, field: str = "prompt") -> list[int]:
        """Token ids of a text; special tokens spelled out in it stay text. Raises RequestError."""
        tokenizer = self.tokenizer
        try:
            return await asyncio.to_thread(tokenizer.encode, text, add_special=add_special)
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
    ) -> list[int]:
        """Token ids of a conversation. Raises RequestError, or TemplateError where there is no template.

        Tools are told through the template where it knows them, else in a system message.
        """
        template, tokenizer = self._template, self._tokenizer
        if isinstance(template, TemplateError):
            raise template
        if template is None or tokenizer is None:
            raise TemplateError("this model has no chat template; use /v1/completions", field="messages")
        told = None
        if template.takes_tools:
            messages = for_tool_template(messages)
            told = [tool.for_template() for tool in tools] or None
        else:
            messages = for_plain_template(messages, tools)
        return await asyncio.to_thread(
            template.encode,
            tokenizer,
            messages,
            tools=told,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            options=options,
        )

    async def decode(self, tokens: Sequence[int]) -> str:
        return await asyncio.to_thread(self.tokenizer.decode, tokens, skip_special=False)


def _dialect(template: ChatTemplate | TemplateError | None) -> Dialect:
    if isinstance(template, ChatTemplate) and template.takes_tools:
        return dialect_of(template.source)
    return DIALECTS["hermes"]  # which the preamble asks for
