"""Another API's messages as a chat: each message remembers what its client calls it, for errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...errors import RequestError
from ..http.failures import renamed
from .fields import MAX_MESSAGES, ChatMessage

_MESSAGE = re.compile(r"messages\[(\d+)\]")


@dataclass
class Conversation:
    """Chat messages, and beside each the field of the client's request that it came from."""

    messages: list[ChatMessage] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)

    def add(self, message: ChatMessage, origin: str) -> None:
        """Raises RequestError where there are as many already as a chat takes."""
        if len(self.messages) == MAX_MESSAGES:
            raise RequestError(f"at most {MAX_MESSAGES} messages are taken", field=origin)
        self.messages.append(message)
        self.origins.append(origin)

    def in_client_words(self, error: RequestError, names: Mapping[str, str]) -> RequestError:
        """The same error about the field by the client's name. `names` has parts of the chat's names and
        what they are replaced by, in this order."""
        given = error.field or ""
        match = _MESSAGE.match(given)
        if match is not None and int(match[1]) < len(self.origins):
            return renamed(error, self.origins[int(match[1])])
        for name, theirs in names.items():
            given = given.replace(name, theirs)
        return error if given == (error.field or "") else renamed(error, given)


def joined(texts: list[str]) -> str:
    """Parts of one message as one text, a line each, for templates that take only text."""
    return "\n".join(texts)
