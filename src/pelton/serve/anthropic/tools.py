"""Tools in Anthropic's form, and the chat's answer as blocks of text and calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..http.events import named_event
from ..openai.replies import CallPiece, ChatAnswer, ChatDelta
from ..openai.tool_fields import ChosenFunction, FunctionFields, NamedChoice, Tool, ToolChoice
from .replies import TextContent, ToolUseContent


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CacheMark(_Fields):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class OfferedTool(_Fields):
    """A function of the client's own; Anthropic's built-in tools are not there."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheMark | None = None

    def tool(self) -> Tool:
        """The same for a chat."""
        function = FunctionFields(
            name=self.name, description=self.description, parameters=self.input_schema, strict=self.strict
        )
        return Tool(type="function", function=function)


class OfferedChoice(_Fields):
    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    def choice(self) -> ToolChoice:
        """The same for a chat."""
        if self.type == "tool":
            return NamedChoice(type="function", function=ChosenFunction(name=self.name or ""))
        return "required" if self.type == "any" else self.type


class ToolFields(_Fields):
    tools: list[OfferedTool] | None = Field(default=None, max_length=256)
    tool_choice: OfferedChoice | None = None

    def for_chat(self) -> dict[str, Any]:
        """The chat's fields of the same meaning."""
        if self.tools is None and self.tool_choice is None:
            return {}
        chosen = self.tool_choice
        return {
            "tools": [tool.tool() for tool in self.tools or ()],
            "tool_choice": None if chosen is None else chosen.choice(),
            "parallel_tool_calls": not (chosen and chosen.disable_parallel_tool_use),
        }


def blocks_of(message: ChatAnswer) -> list[TextContent | ToolUseContent]:
    """A whole answer as blocks: its text if it has any, then its calls."""
    calls: Sequence[Any] = message.tool_calls or ()
    blocks: list[TextContent | ToolUseContent] = []
    if message.content or not calls:
        blocks.append(TextContent(text=message.content or ""))
    for call in calls:
        blocks.append(
            ToolUseContent(id=call.id, name=call.function.name, input=_object(call.function.arguments))
        )
    return blocks


def _object(arguments: str) -> dict[str, Any]:
    """The arguments as a value; a call that was cut off has none."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class BlockEvents:
    """The events of a stream's blocks: one at a time is open, and each has the next index."""

    def __init__(self) -> None:
        self._index = -1
        self._open: int | str | None = None  # "text", or the number of the call

    def add(self, delta: ChatDelta) -> Iterator[bytes]:
        """Events for what a piece of the chat's answer adds."""
        if delta.content:
            if self._open != "text":
                yield from self._begin("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": delta.content})
        for piece in delta.tool_calls or ():
            yield from self._call(piece)

    def end(self) -> Iterator[bytes]:
        """The end of the last block; an answer of nothing is an empty text."""
        if self._open is None:
            yield from self._begin("text", {"type": "text", "text": ""})
        yield named_event("content_block_stop", {"index": self._index})

    def _call(self, piece: CallPiece) -> Iterator[bytes]:
        if self._open != piece.index:
            block: dict[str, object] = {"type": "tool_use", "id": piece.id, "input": {}}
            block["name"] = piece.function.name
            yield from self._begin(piece.index, block)
        if piece.function.arguments:
            yield self._delta({"type": "input_json_delta", "partial_json": piece.function.arguments})

    def _begin(self, kind: int | str, block: dict[str, object]) -> Iterator[bytes]:
        if self._open is not None:
            yield named_event("content_block_stop", {"index": self._index})
        self._open = kind
        self._index += 1
        yield named_event("content_block_start", {"index": self._index, "content_block": block})

    def _delta(self, delta: dict[str, object]) -> bytes:
        return named_event("content_block_delta", {"index": self._index, "delta": delta})
