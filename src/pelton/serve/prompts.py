"""Text and conversations -> token ids, off the event loop: a long prompt must not hold up other streams."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from ..errors import RequestError, TemplateError
from ..text import ChatTemplate, Tokenizer
from .failures import renamed


class Prompts:
    """A model's tokenizer and chat template; both are safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer | None, template: ChatTemplate | TemplateError | None) -> None:
        self._tokenizer = tokenizer
        self._template = template

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise RequestError("this model has no tokenizer; give token ids", field="prompt")
        return self._tokenizer

    async def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text; special tokens spelled out in it stay text. Raises RequestError."""
        tokenizer = self.tokenizer
        try:
            return await asyncio.to_thread(tokenizer.encode, text, add_special=add_special)
        except RequestError as error:
            raise renamed(error, "prompt") from None

    async def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        options: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Token ids of a conversation. Raises RequestError, or TemplateError where there is no template."""
        template, tokenizer = self._template, self._tokenizer
        if isinstance(template, TemplateError):
            raise template
        if template is None or tokenizer is None:
            raise TemplateError("this model has no chat template; use /v1/completions", field="messages")
        return await asyncio.to_thread(
            template.encode,
            tokenizer,
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            options=options,
        )

    async def decode(self, tokens: Sequence[int]) -> str:
        return await asyncio.to_thread(self.tokenizer.decode, tokens, skip_special=False)
