"""A conversation: its messages, its settings, and asking for the next answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..config import SamplingParams
from ..errors import ConfigError, RequestError
from ..llm import LLM
from .answer import Answer, stream_answer

ROLES = ("system", "user", "assistant")
_MOST_FILE_BYTES = 64 << 20

Message = dict[str, str]


@dataclass
class Conversation:
    """`messages` hold whole exchanges only: a question whose answer failed leaves no trace."""

    llm: LLM
    params: SamplingParams
    system: str | None = None
    messages: list[Message] = field(default_factory=list)

    def ask(self, question: str, show: Callable[[str], None]) -> Answer:
        """Stream the answer through `show` and keep the exchange, also if Ctrl-C cut the answer short.

        Raises ContextOverflowError where the conversation has outgrown the context, among others.
        """
        asked = [*self.messages, {"role": "user", "content": question}]
        prompt = self.llm.requests.render(self._with_system(asked))
        answer = stream_answer(self.llm, prompt, self.params, show)
        self.messages = [*asked, {"role": "assistant", "content": answer.text}]
        return answer

    def _with_system(self, messages: list[Message]) -> list[Message]:
        return messages if self.system is None else [{"role": "system", "content": self.system}, *messages]

    def undo(self) -> str:
        """Forget the last exchange; its question. Raises RequestError if there is none."""
        if not self.messages:
            raise RequestError("there is nothing to take back")
        question = self.messages[-2]["content"]
        self.messages = self.messages[:-2]
        return question

    def clear(self) -> None:
        self.messages = []

    def save(self, path: Path) -> None:
        """Write the messages as JSON, in the form chat APIs take. Never overwrites."""
        with path.open("x", encoding="utf-8") as file:
            json.dump(self._with_system(self.messages), file, ensure_ascii=False, indent=2)
            file.write("\n")

    def load(self, path: Path) -> None:
        """Take up a saved conversation. Raises ConfigError for a file that is none."""
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise ConfigError("is too large for a conversation", subject=path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"is not JSON: {error}", subject=path) from None
        messages = checked_messages(document, path)
        self.system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
        self.messages = messages


def checked_messages(document: object, path: Path) -> list[Message]:
    """Messages in which user and assistant alternate after an optional system message."""
    if not isinstance(document, list):
        raise ConfigError("must hold a list of messages", subject=path)
    messages: list[Message] = []
    for index, item in enumerate(document):
        if not isinstance(item, dict) or set(item) != {"role", "content"}:
            raise ConfigError("must have a role and a content", subject=path, field=f"message {index}")
        if not all(isinstance(value, str) for value in item.values()):
            raise ConfigError("role and content must be texts", subject=path, field=f"message {index}")
        messages.append(dict(item))
    turns = [message["role"] for message in messages]
    turns = turns[1:] if turns[:1] == ["system"] else turns
    if turns != ["user", "assistant"] * (len(turns) // 2):
        raise ConfigError("questions and answers must alternate", subject=path, field="role", value=turns[:8])
    return messages
