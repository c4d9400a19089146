"""What clients send to /v1/responses, and how it becomes a chat."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from ...config import MAX_INTEGER, MAX_LOGPROBS
from ...errors import RequestError
from ..openai.conversation import Conversation, joined
from ..openai.fields import (
    MAX_MESSAGES,
    MAX_PARTS,
    ChatMessage,
    ChatRequest,
    Fields,
    Labels,
    StreamOptions,
    TermFields,
    at_most,
)
from ..openai.unions import by_type
from .tools import ResponseTool, ResponseToolChoice, TextSettings, chat_choice

CHAT_NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "messages": "input",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    ".function.": ".",
}
"""Names of the chat's fields that an error may carry, and what a client of this API calls them."""
_SAME = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "user", "stream"),
    *("priority", "deadline", "program", "cache_salt"),
)


class InputText(Fields):
    type: Literal["input_text"]
    text: str


class OutputText(Fields):
    """What a response said, sent back as it came."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


Part = Annotated[
    Annotated[InputText, Tag("<input_text>")] | Annotated[OutputText, Tag("<output_text>")], by_type()
]


class InputMessage(Fields):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[str | Annotated[list[Part], Field(fail_fast=True)], at_most(MAX_PARTS)]
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: str | None = None


class FunctionCall(Fields):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class FunctionCallOutput(Fields):
    type: Literal["function_call_output"]
    call_id: str
    output: Annotated[str | Annotated[list[Part], Field(fail_fast=True)], at_most(MAX_PARTS)]
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


AnyItem = InputMessage | FunctionCall | FunctionCallOutput
Item = Annotated[
    Annotated[InputMessage, Tag("<message>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")],
    by_type("message"),
]


class ResponsesRequest(Labels, TermFields):
    """POST /v1/responses."""

    model: str | None = None
    input: Annotated[
        str | Annotated[list[Item], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)],
        at_most(MAX_MESSAGES),
    ]
    instructions: str | None = None
    previous_response_id: str | None = Field(default=None, max_length=256)
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    include: list[Literal["message.output_text.logprobs"]] | None = None
    text: TextSettings | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled"] | None = None

    def check(self) -> None:
        """Raises RequestError for fields that do not go together."""
        if self.background and self.stream:
            raise RequestError("is not for streams", field="background", value=True)
        if self.background and self.store is False:
            raise RequestError("needs store: it is fetched later", field="background", value=True)
        if self.stream_options is not None and not self.stream:
            raise RequestError("is only for stream = true", field="stream_options")

    @property
    def stored(self) -> bool:
        return self.store is not False

    @property
    def items(self) -> list[AnyItem]:
        """The input as items, whichever way it was given."""
        if isinstance(self.input, str):
            return [InputMessage(role="user", content=[InputText(type="input_text", text=self.input)])]
        return list(self.input)

    def conversation(self, before: list[ChatMessage]) -> Conversation:
        """Instructions, what a previous response ended with, and the input, as a chat."""
        talk = Conversation()
        if self.instructions is not None:
            talk.add(ChatMessage(role="system", content=self.instructions), "instructions")
        for message in before:
            talk.add(message, "previous_response_id")
        begun = len(talk.messages)
        for index, item in enumerate(self.items):
            message = _chat_message(item)
            last = talk.messages[-1] if len(talk.messages) > begun else None
            if message.tool_calls and last is not None and last.role == "assistant":
                last.tool_calls = [*(last.tool_calls or ()), *message.tool_calls]  # one turn said it all
            else:
                talk.add(message, "input" if isinstance(self.input, str) else f"input[{index}]")
        return talk

    def chat(self, talk: Conversation) -> ChatRequest:
        """The same request for /v1/chat/completions."""
        wants_logprobs = bool(self.top_logprobs or self.include)
        return ChatRequest(
            model=self.model,
            messages=talk.messages,
            max_completion_tokens=self.max_output_tokens,
            logprobs=wants_logprobs or None,
            top_logprobs=self.top_logprobs if wants_logprobs else None,
            tools=None if self.tools is None else [tool.tool() for tool in self.tools],
            tool_choice=chat_choice(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=None if self.text is None else self.text.chat_format(),
            **{name: getattr(self, name) for name in _SAME},
        )


def _text(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else joined([part.text for part in content])


def _chat_message(item: AnyItem) -> ChatMessage:
    if isinstance(item, FunctionCall):
        function = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        return ChatMessage(role="assistant", tool_calls=[call])
    if isinstance(item, FunctionCallOutput):
        return ChatMessage(role="tool", content=_text(item.output), tool_call_id=item.call_id)
    # "developer" is OpenAI's newer word for what chat templates call the system.
    return ChatMessage(role="system" if item.role == "developer" else item.role, content=_text(item.content))
