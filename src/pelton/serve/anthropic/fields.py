"""What Anthropic's clients send to /v1/messages, and how it becomes a chat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from ...config import MAX_INTEGER, MAX_STOP_STRINGS
from ..openai.conversation import Conversation, joined
from ..openai.fields import (
    MAX_MESSAGES,
    MAX_PARTS,
    ChatMessage,
    ChatRequest,
    Fields,
    StreamOptions,
    TemplateFields,
    TermFields,
    at_most,
)
from ..openai.form_fields import JsonSchemaFormat, NamedSchema
from ..openai.unions import by_type
from .tools import CacheMark, ToolFields

CHAT_NAMES = {
    "stop": "stop_sequences",
    "max_completion_tokens": "max_tokens",
    "response_format.json_schema": "output_config.format",
    "response_format": "output_config.format",
    "function.parameters": "input_schema",
    "function.": "",
}
"""Names of the chat's fields that an error may carry, and what a client of this API calls them."""


class TextBlock(Fields):
    type: Literal["text"]
    text: str
    cache_control: CacheMark | None = None
    citations: None = None


class ThinkingBlock(Fields):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class ToolUseBlock(Fields):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheMark | None = None


class ToolResultBlock(Fields):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[str | list[TextBlock] | None, at_most(MAX_PARTS)] = None
    is_error: bool | None = None
    cache_control: CacheMark | None = None


Block = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")],
    by_type(),
]


class Message(Fields):
    role: Literal["user", "assistant"]
    content: Annotated[str | Annotated[list[Block], Field(fail_fast=True)], at_most(MAX_PARTS)]


class Metadata(Fields):
    user_id: str | None = None


class Thinking(Fields):
    type: Literal["disabled"]


class OutputSchema(Fields):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Fields):
    format: OutputSchema | None = None

    def chat_format(self) -> JsonSchemaFormat | None:
        """The same for a chat."""
        if self.format is None:
            return None
        named = NamedSchema(name="output", schema=self.format.schema_)
        return JsonSchemaFormat(type="json_schema", json_schema=named)


class CountRequest(ToolFields):
    """POST /v1/messages/count_tokens: what makes up the prompt."""

    model: str | None = None
    messages: Annotated[
        Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)],
        at_most(MAX_MESSAGES),
    ]
    system: Annotated[str | list[TextBlock] | None, at_most(MAX_PARTS)] = None
    thinking: Thinking | None = None
    cache_control: CacheMark | None = None
    output_config: OutputConfig | None = None

    def template(self, talk: Conversation) -> TemplateFields:
        """The same request for the chat template."""
        return TemplateFields(
            messages=talk.messages,
            add_generation_prompt=not self.continues,
            continue_final_message=self.continues,
            **self.for_chat(),
        )

    def conversation(self) -> Conversation:
        """The chat that these messages are; blocks that are messages of their own there become such."""
        talk = Conversation()
        if self.system is not None:
            talk.add(ChatMessage(role="system", content=_text(self.system)), "system")
        for index, message in enumerate(self.messages):
            for chat_message in _chat_messages(message):
                talk.add(chat_message, f"messages[{index}]")
        return talk

    @property
    def continues(self) -> bool:
        """Whether the answer begins with what the assistant's last message says."""
        return self.messages[-1].role == "assistant"


class MessagesRequest(CountRequest, TermFields):
    """POST /v1/messages."""

    max_tokens: int = Field(ge=1, le=MAX_INTEGER)
    stop_sequences: list[str] | None = Field(default=None, max_length=MAX_STOP_STRINGS)
    stream: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None

    def chat(self, talk: Conversation) -> ChatRequest:
        """The same request for /v1/chat/completions."""
        template = self.template(talk)
        return ChatRequest(
            **{name: getattr(template, name) for name in TemplateFields.model_fields},
            model=self.model,
            response_format=None if self.output_config is None else self.output_config.chat_format(),
            max_completion_tokens=self.max_tokens,
            stop=self.stop_sequences,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
            stream=self.stream,
            stream_options=StreamOptions(include_usage=True) if self.stream else None,
            priority=self.priority,
            deadline=self.deadline,
            program=self.program,
            cache_salt=self.cache_salt,
        )


def _text(content: str | list[TextBlock] | None) -> str:
    return content if isinstance(content, str) else joined([block.text for block in content or ()])


def _chat_messages(message: Message) -> Iterator[ChatMessage]:
    """Results of tools first: they answer the message before."""
    if isinstance(message.content, str):
        yield ChatMessage(role=message.role, content=message.content)
        return
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    has_results = False
    for block in message.content:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ThinkingBlock):
            thoughts.append(block.thinking)
        elif isinstance(block, ToolUseBlock):
            function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
            calls.append({"id": block.id, "type": "function", "function": function})
        else:
            has_results = True
            yield ChatMessage(role="tool", content=_text(block.content), tool_call_id=block.tool_use_id)
    if texts or calls or thoughts or not has_results:
        yield ChatMessage(
            role=message.role,
            content=joined(texts) if texts or not calls else None,
            tool_calls=calls or None,
            reasoning_content=joined(thoughts) if thoughts else None,
        )
