"""The items of a response as they grow, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterator

from ..openai.replies import CallPiece, ChatChunkChoice, ChatLogprob
from .replies import OutputCall, OutputMessage, OutputTextPart

Event = tuple[str, dict[str, object]]


class Output:
    """Text is a message, each call of a tool an item of its own; one item is open at a time."""

    def __init__(self, name: str) -> None:
        self.items: list[OutputMessage | OutputCall] = []
        self._name = name
        self._parts: list[str] = []
        self._open: int | str | None = None  # "text", or the number of a call

    def add(self, choice: ChatChunkChoice) -> Iterator[Event]:
        """More of the chat's answer."""
        text = choice.delta.content or ""
        entries = choice.logprobs.content if choice.logprobs is not None else []
        if text or entries:
            yield from self._text(text, entries)
        for piece in choice.delta.tool_calls or ():
            yield from self._call(piece)

    def end(self, is_complete: bool) -> Iterator[Event]:
        """The end of the last item; an answer of nothing is an empty message."""
        if self._open is None:
            yield from self._begin_message()
        yield from self._close("completed" if is_complete else "incomplete")

    def _text(self, text: str, entries: list[ChatLogprob]) -> Iterator[Event]:
        if self._open != "text":
            yield from self._close("completed")
            yield from self._begin_message()
        item = self.items[-1]
        assert isinstance(item, OutputMessage)
        self._parts.append(text)
        item.content[0].logprobs += entries
        logprobs = [entry.model_dump() for entry in entries]
        yield "response.output_text.delta", {**self._place, "delta": text, "logprobs": logprobs}

    def _call(self, piece: CallPiece) -> Iterator[Event]:
        if self._open != piece.index:
            yield from self._close("completed")
            self._open = piece.index
            call = OutputCall(
                id=f"fc_{self._name}_{len(self.items)}",
                status="in_progress",
                call_id=piece.id or "",
                name=piece.function.name or "",
                arguments="",
            )
            self.items.append(call)
            yield "response.output_item.added", self._item
        if piece.function.arguments:
            self._parts.append(piece.function.arguments)
            told = {"item_id": self.items[-1].id, "output_index": len(self.items) - 1}
            yield "response.function_call_arguments.delta", {**told, "delta": piece.function.arguments}

    def _begin_message(self) -> Iterator[Event]:
        self._open = "text"
        item = OutputMessage(id=f"msg_{self._name}_{len(self.items)}", status="in_progress", content=[])
        self.items.append(item)
        yield "response.output_item.added", self._item
        part = OutputTextPart(text="")
        yield "response.content_part.added", {**self._place, "part": part.model_dump()}
        item.content = [part]

    def _close(self, status: str) -> Iterator[Event]:
        if self._open is None:
            return
        item, text = self.items[-1], "".join(self._parts)
        self._parts.clear()
        item.status = "completed" if status == "completed" else "incomplete"
        if isinstance(item, OutputCall):
            item.arguments = text
            told = {"item_id": item.id, "output_index": len(self.items) - 1, "name": item.name}
            yield "response.function_call_arguments.done", {**told, "arguments": text}
        else:
            item.content[0].text = text
            part = item.content[0].model_dump()
            told_text = {"text": part["text"], "logprobs": part["logprobs"]}
            yield "response.output_text.done", {**self._place, **told_text}
            yield "response.content_part.done", {**self._place, "part": part}
        yield "response.output_item.done", self._item

    @property
    def _item(self) -> dict[str, object]:
        return {"output_index": len(self.items) - 1, "item": self.items[-1].model_dump()}

    @property
    def _place(self) -> dict[str, object]:
        return {"item_id": self.items[-1].id, "output_index": len(self.items) - 1, "content_index": 0}
