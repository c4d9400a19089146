"""Responses kept for later: to be fetched, gone on from, or cancelled. In memory, and bounded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from ..http.failures import UnknownResponseError
from ..openai.fields import ChatMessage
from .fields import AnyItem
from .replies import OutputCall, ResponseReply

MOST_RESPONSES = 4096
MOST_CHARACTERS = 64 << 20


@dataclass
class Kept:
    """A response and what led to it. `items` are its input; `talk` the conversation without instructions, the
    answer not in it; `task` works on it where it runs in the background, and then `over` is set."""

    reply: ResponseReply
    items: list[AnyItem]
    talk: list[ChatMessage]
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def characters(self) -> int:
        """About how much memory it takes: a conversation is counted in every response that ends with it."""
        given = sum(len(item.model_dump_json()) for item in self.items)
        said = sum(256 + len(repr(message)) for message in self.talk)
        return len(self.reply.model_dump_json()) + given + said + 1024

    def forget_input(self) -> None:
        """Of what failed nothing is gone on from: only how it failed is kept."""
        self.items, self.talk = [], []
        self.reply.instructions, self.reply.tools = None, []

    def with_answer(self) -> list[ChatMessage]:
        """The conversation that a next response goes on from."""
        texts: list[str] = []
        calls: list[dict[str, object]] = []
        for item in self.reply.output:
            if isinstance(item, OutputCall):
                function = {"name": item.name, "arguments": item.arguments}
                calls.append({"id": item.call_id, "type": "function", "function": function})
            else:
                texts += [part.text for part in item.content]
        text = "".join(texts)
        answer = ChatMessage(
            role="assistant", content=text if text or not calls else None, tool_calls=calls or None
        )
        return [*self.talk, answer]


class ResponseStore:
    """The responses of each tenant, which no other tenant sees. The oldest go when there are too many."""

    def __init__(self, most: int = MOST_RESPONSES, most_characters: int = MOST_CHARACTERS) -> None:
        self._most = most
        self._most_characters = most_characters
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._sizes: dict[tuple[str, str], int] = {}
        self._characters = 0

    def put(self, tenant: str, kept: Kept) -> None:
        """Keep it, or count it anew after it has changed."""
        key = (tenant, kept.reply.id)
        self._drop(key)
        self._kept[key] = kept
        self._sizes[key] = kept.characters
        self._characters += kept.characters
        while len(self._kept) > self._most or self._characters > self._most_characters:
            oldest = next((k for k, k_kept in self._kept.items() if k_kept.task is None), None)
            if oldest is None:  # all of them run: they are bounded by the queue they run in
                return
            self._drop(oldest)

    def get(self, tenant: str, name: str) -> Kept:
        """Raises UnknownResponseError."""
        kept = self._kept.get((tenant, name))
        if kept is None:
            raise UnknownResponseError(f"there is no response {name[:128]!r}", field="response_id")
        return kept

    def delete(self, tenant: str, name: str) -> None:
        """Forget it, ending it first if it runs. Raises UnknownResponseError."""
        kept = self.get(tenant, name)
        self._drop((tenant, name))
        if kept.task is not None:
            kept.task.cancel()

    def holds(self, tenant: str, name: str) -> bool:
        return (tenant, name) in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def _drop(self, key: tuple[str, str]) -> None:
        if self._kept.pop(key, None) is not None:
            self._characters -= self._sizes.pop(key)
