"""The tokens a sequence holds, kept so that penalties and masks cost nothing while they are off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .grammar import GrammarState

TokenIds = NDArray[np.intp]
Counts = NDArray[np.int32]


class TokenHistory:
    """Prompt and output tokens of one sequence; forks, and rolls back like the KV of rejected drafts.

    `push` is O(1), `rollback` O(tokens dropped), `fork` O(output). The distinct tokens and their
    counts are only kept from the first call of `seen` on, which reads prompt and output once. `grammar`
    is the state of the output in the request's grammar, if it has one.
    """

    __slots__ = ("_output", "_prompt", "_seen", "grammar")

    def __init__(
        self, prompt: Sequence[int], output: Sequence[int] = (), grammar: GrammarState | None = None
    ) -> None:
        self._prompt = prompt
        self._output = list(output)
        self.grammar = grammar
        self._seen: _SeenTokens | None = None

    @property
    def output(self) -> Sequence[int]:
        """Tokens generated so far; a view that later pushes change."""
        return self._output

    @property
    def num_outputs(self) -> int:
        return len(self._output)

    @property
    def position(self) -> int:
        """Place in the sequence of the next token, prompt included."""
        return len(self._prompt) + len(self._output)

    def push(self, token: int) -> None:
        self._output.append(token)
        if self._seen is not None:
            self._seen.push(token)
        if self.grammar is not None:
            self.grammar.push(token)

    def rollback(self, num_outputs: int) -> None:
        """Forget output tokens until `num_outputs` are left."""
        assert 0 <= num_outputs <= len(self._output)
        if self.grammar is not None:
            self.grammar.rollback(len(self._output) - num_outputs)
        while len(self._output) > num_outputs:
            token = self._output.pop()
            if self._seen is not None:
                self._seen.pop(token)

    def fork(self) -> TokenHistory:
        """An independent history with the same tokens; the prompt is shared, it never changes."""
        grammar = None if self.grammar is None else self.grammar.fork()
        twin = TokenHistory(self._prompt, self._output, grammar)
        twin._seen = None if self._seen is None else self._seen.copy()
        return twin

    def output_ends_with(self, tokens: tuple[int, ...]) -> bool:
        return len(tokens) <= len(self._output) and tuple(self._output[-len(tokens) :]) == tokens

    def seen(self) -> tuple[TokenIds, Counts]:
        """Distinct tokens of prompt and output [D], and how often each is in the output [D].

        Both are views that the next `push` or `rollback` changes.
        """
        if self._seen is None:
            self._seen = _SeenTokens.of(self._prompt, self._output)
        return self._seen.views()


class _SeenTokens:
    """Distinct tokens as a stack: rolling back the newest occurrence first undoes pushes exactly."""

    __slots__ = ("counts", "ids", "num_prompt", "slots")

    def __init__(self, ids: TokenIds, counts: Counts, slots: dict[int, int], num_prompt: int) -> None:
        self.ids = ids
        self.counts = counts
        self.slots = slots  # token id -> index into ids and counts
        self.num_prompt = num_prompt

    @classmethod
    def of(cls, prompt: Sequence[int], output: Sequence[int]) -> _SeenTokens:
        distinct = dict.fromkeys(int(token) for token in prompt)
        capacity = len(distinct) + len(output) + 64
        ids = np.zeros(capacity, dtype=np.intp)
        ids[: len(distinct)] = list(distinct)
        slots = {token: slot for slot, token in enumerate(distinct)}
        seen = cls(ids, np.zeros(capacity, dtype=np.int32), slots, len(distinct))
        for token in output:
            seen.push(token)
        return seen

    def views(self) -> tuple[TokenIds, Counts]:
        size = len(self.slots)
        return self.ids[:size], self.counts[:size]

    def push(self, token: int) -> None:
        slot = self.slots.get(token)
        if slot is None:
            slot = len(self.slots)
            if slot == len(self.ids):
                self.ids = np.concatenate([self.ids, np.zeros_like(self.ids)])
                self.counts = np.concatenate([self.counts, np.zeros_like(self.counts)])
            self.slots[token] = slot
            self.ids[slot] = token
        self.counts[slot] += 1

    def pop(self, token: int) -> None:
        slot = self.slots[token]
        self.counts[slot] -= 1
        if self.counts[slot] == 0 and slot >= self.num_prompt:
            del self.slots[token]

    def copy(self) -> _SeenTokens:
        return _SeenTokens(self.ids.copy(), self.counts.copy(), self.slots.copy(), self.num_prompt)
