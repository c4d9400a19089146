"""What one rendering may use: processor time, and text and list elements made.

Templates are untrusted programs run in this process. Nothing can interrupt one in the
middle of an operation, so each operation is bounded before it starts (by the size of
what it would make) and the time is checked between operations.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

MAX_MADE = 64 << 20  # characters and eighths of list elements that one rendering may make in all
MAX_NODES = 250_000  # values in one nested container, counted as often as they are reached
MAX_NESTING = 64
MAX_SEARCH = 1 << 28  # length of text times length of what is sought in it
MAX_NUMBER_BITS = 4096
_LEAVES = str | int | float | None | range | Undefined


class Budget:
    """Counts for one rendering; `seconds` of this thread's processor time, `max_text` characters a value."""

    def __init__(self, seconds: float, max_text: int) -> None:
        self.max_text = max_text
        self._deadline = time.thread_time() + seconds
        self._made = 0
        # Sizes of containers seen; each is kept alive so that its id stays its own.
        self._sizes: dict[int, tuple[object, int, int]] = {}

    def tick(self) -> None:
        """SecurityError once the time is used up."""
        if time.thread_time() > self._deadline:
            raise SecurityError("the template ran too long")

    def make(self, characters: int) -> None:
        """Account for a text of this length, before it is made."""
        if characters > self.max_text:
            raise SecurityError(f"the template makes a text longer than {self.max_text} characters")
        self._made += characters
        if self._made > MAX_MADE:
            raise SecurityError("the template makes too much text")

    def weigh(self, value: object) -> object:
        """`value` itself, once it is known to be small enough to walk over, compare and print."""
        self.tick()
        if isinstance(value, str):
            self.make(len(value))
        elif isinstance(value, list | tuple | dict):
            self.make(8 * len(value))
            self._measure(value, 0)
        elif isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
            raise SecurityError("the template makes too large a number")
        return value

    def text(self, value: object) -> str:
        """`str(value)`, refused for objects that are no data and for what would be too long."""
        if isinstance(value, str):
            return value
        if isinstance(value, Undefined):
            return str(value)
        if not isinstance(value, list | tuple | dict | _LEAVES):
            raise SecurityError(f"the template prints a {type(value).__name__}")
        self.make(self._measure(value, 0)[1])
        return str(value)

    def check_json(self, value: object, indent: int) -> None:
        """Account for `value` as JSON before it is made."""
        nodes, characters = self._measure(value, 0)
        self.make(min(characters + nodes * (indent * 4 + 4), MAX_MADE * 2))

    def joined(self, pieces: Iterable[str], separator: str = "") -> str:
        """The pieces as one text, its length known before it is made."""
        listed = list(islice(pieces, MAX_NODES + 1))
        if len(listed) > MAX_NODES:
            raise SecurityError("the template joins too many texts")
        self.make(sum(map(len, listed)) + len(separator) * len(listed))
        return separator.join(listed)

    def search(self, text: str, sought: object) -> None:
        """Refuses searches that could take the product of both lengths."""
        if isinstance(sought, str) and len(text) * len(sought) > MAX_SEARCH:
            raise SecurityError("the template searches for too long a text")

    def _measure(self, value: object, depth: int) -> tuple[int, int]:
        """(values, characters when printed) in `value`; shared parts count as often as they are reached."""
        if isinstance(value, str):
            return 1, len(value) + 2
        if not isinstance(value, list | tuple | dict):
            # A namespace or view inside could share parts that nobody counts when it is printed.
            if not isinstance(value, _LEAVES):
                raise SecurityError(f"the template puts a {type(value).__name__} in a list")
            return 1, 2000 if isinstance(value, int) and value.bit_length() > 64 else 32
        known = self._sizes.get(id(value))
        if known is not None:
            return known[1], known[2]
        if depth > MAX_NESTING:
            raise SecurityError("the template nests lists too deeply")
        nodes, characters = 1, 2
        items: Iterable[object] = value
        if isinstance(value, dict):
            items = [part for pair in value.items() for part in pair]
        for item in items:
            inner_nodes, inner_characters = self._measure(item, depth + 1)
            nodes += inner_nodes
            characters += inner_characters + 2
            if nodes > MAX_NODES or characters > MAX_MADE:
                raise SecurityError("the template builds too large a list")
        self._sizes[id(value)] = (value, nodes, characters)
        return nodes, characters
