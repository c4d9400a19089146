"""One sequence on its way: tokens, how many of them are computed, where its KV lies."""

from __future__ import annotations

from copy import copy

import numpy as np

from ..decode.finish import FinishRules
from ..decode.request import DecodeRequest
from ..kv import BlockTable, Prefix
from ..spec.budget import Acceptance
from ..spec.draft import Draft
from ..terms import ORDINARY, RequestTerms
from ..types import I32, Span

MOST_SCORED_ROWS = 64
"""Prompt rows with logits in one step: 64 x 256,000 float32 logits are 65 MB."""


_FIRST_ROW = np.zeros(1, dtype=np.int32)
_FIRST_ROW.flags.writeable = False


class Sequence:
    """`computed` catches up with `num_tokens` (+ draft); whatever is missing is the next span.

    Interval owners: [0, num_prompt) the user's tokens, [num_prompt, num_tokens) generated ones;
    KV slots [0, computed) hold valid keys, slots beyond are free to overwrite.
    """

    # Attributes beside each other in memory, here and in what else a step looks at for each sequence: weights
    # have passed through the caches since, and a step of 48 sequences takes up to a fifth less Python.
    __slots__ = (
        "_tokens", "acceptance", "arrival", "computed", "decode", "draft", "followers", "hidden_state", "id",
        "num_cached", "num_prompt", "num_tokens", "preempted", "preemptions", "prefix",
        "prompt_logprobs", "prompt_scored", "rules", "started", "table", "terms", "unchanged",
        "wants_hidden",
    )  # fmt: skip

    def __init__(
        self,
        sequence_id: int,
        prompt: I32,
        decode: DecodeRequest,
        rules: FinishRules,
        table: BlockTable,
        terms: RequestTerms = ORDINARY,
        *,
        prompt_logprobs: int | None = None,
        prefix: Prefix | None = None,
        wants_hidden: bool = False,
    ) -> None:
        self.id = sequence_id
        self.decode = decode
        self.rules = rules
        self.table = table
        self.prefix = prefix
        self.terms = terms
        self.arrival: float | None = None  # when its request was added, on the scheduler's clock
        self.prompt_logprobs = prompt_logprobs
        self.num_prompt = len(prompt)
        self.num_tokens = len(prompt)
        self.computed = 0
        self.started: float | None = None  # when it was first part of a step, by `monotonic`
        self.preempted = 0  # times since it was last part of a step
        self.preemptions = 0  # how often its blocks went to others
        self.unchanged = 0  # KV slots that are as they were when its blocks were last saved elsewhere
        self.num_cached = 0  # prompt tokens that a cache had when the sequence began
        self.prompt_scored = 0  # prompt positions whose log probabilities went out already
        self.wants_hidden = wants_hidden
        self.hidden_state: tuple[float, ...] | None = None  # of the prompt's last token, until it goes out
        self.draft: Draft | None = None
        self.acceptance = Acceptance()  # of its drafts
        self.followers: list[Sequence] = []  # siblings of one request that fork from this one's prompt
        self._tokens = np.zeros(len(prompt) + rules.max_tokens, dtype=np.int32)
        self._tokens[: len(prompt)] = prompt

    @property
    def tokens(self) -> I32:
        """Prompt and output, a view [num_tokens]."""
        return self._tokens[: self.num_tokens]

    @property
    def num_outputs(self) -> int:
        return self.num_tokens - self.num_prompt

    @property
    def missing(self) -> int:
        """Tokens to run, the draft included."""
        return self.num_tokens - self.computed + (len(self.draft.tokens) if self.draft else 0)

    @property
    def is_decoding(self) -> bool:
        """Whether one token (and perhaps a draft) is all that is missing."""
        return self.num_tokens - self.computed == 1

    def append(self, token: int) -> None:
        self._tokens[self.num_tokens] = token
        self.num_tokens += 1
        self.decode.history.push(token)

    def fit(self, room: int) -> int:
        """How many rows run in a step that has room for so many: fewer where each leaves a row of logits
        behind. A draft runs whole or not at all."""
        missing = self.missing
        if missing > room and self.draft is not None:
            self.draft = None
            missing = self.missing
        if self.prompt_logprobs is not None and self.num_outputs == 0:
            room = min(room, MOST_SCORED_ROWS)
        return min(missing, room)

    def start(self) -> None:
        """Take over what the prefix cache holds of the missing tokens. Schedulers call it before they plan
        rows of a sequence that is not decoding: another may have computed the same prefix since."""
        if self.prefix is None or self.is_decoding:
            return
        # The last token's row gives the logits, and so do all rows whose log probabilities are wanted.
        limit = self.prompt_scored if self._wants_prompt_rows(0) else self.num_tokens - 1
        before, self.computed = self.computed, self.prefix.extend(self.tokens, self.computed, limit)
        self.num_cached += self.prefix.count(self.num_prompt, self.computed - before)

    def advance(self, count: int) -> None:
        """`count` more tokens are computed; blocks that are full now can serve others."""
        self.computed += count
        if self.prefix is not None and self.computed >= self.prefix.next_full:
            self.prefix.publish(self.tokens, self.computed)

    def release(self) -> None:
        """Give all blocks back. What was computed stays in the prefix cache until the room is needed."""
        if self.prefix is not None:
            self.prefix.finish(self.tokens, self.computed)
        self.table.release()

    def spoil(self) -> None:
        """The model computed no numbers for it: whatever blocks it used, nobody else is to."""
        if self.prefix is not None:
            self.prefix.spoil()

    def span(self, count: int) -> Span:
        """The next `count` rows; the last asks for logits if it completes the sequence."""
        if self.draft is not None:
            return self._draft_span(self.draft)
        end = self.computed + count
        if count == 1 and end == self.num_tokens:
            return Span(
                self.id, self.computed, self._tokens[self.computed : end], self.table.array, _FIRST_ROW
            )
        if self._wants_prompt_rows(end):
            outputs = np.arange(count, dtype=np.int32)
        elif end == self.num_tokens:
            outputs = np.array([count - 1], dtype=np.int32)
        else:
            outputs = np.zeros(0, dtype=np.int32)
        return Span(self.id, self.computed, self._tokens[self.computed : end], self.table.array, outputs)

    def _wants_prompt_rows(self, end: int) -> bool:
        return self.prompt_logprobs is not None and self.num_outputs == 0 and end <= self.num_prompt

    def _draft_span(self, draft: Draft) -> Span:
        """Row 0 is the last token, the draft's token i is row i + 1."""
        tokens = np.array([self._tokens[self.num_tokens - 1], *draft.tokens], dtype=np.int32)
        outputs = np.arange(len(tokens), dtype=np.int32)
        parents = None
        if draft.parents is not None:
            parents = np.array([-1, *(parent + 1 for parent in draft.parents)], dtype=np.int32)
        return Span(self.id, self.computed, tokens, self.table.array, outputs, parents)

    def fork(self, sequence_id: int, decode: DecodeRequest) -> Sequence:
        """A copy that shares all KV blocks and goes on by itself with `decode`."""
        twin = copy(self)
        twin.id, twin.decode, twin.draft, twin.followers = sequence_id, decode, None, []
        twin.acceptance = copy(self.acceptance)
        twin.preempted = twin.preemptions = 0
        twin._tokens = self._tokens.copy()
        twin.table = self.table.fork()
        twin.prefix = None if self.prefix is None else self.prefix.fork(twin.table)
        return twin

    def roll_back(self, num_tokens: int) -> None:
        """Forget generated tokens until `num_tokens` are left; the next step computes the last again."""
        assert self.num_prompt <= num_tokens <= self.num_tokens
        self.decode.history.rollback(num_tokens - self.num_prompt)
        self.num_tokens = num_tokens
        self.computed = min(self.computed, num_tokens - 1)
        self.unchanged = min(self.unchanged, self.computed)
        self.table.shrink(self.computed)
        if self.prefix is not None:
            self.prefix.rewind(self.computed)

    def preempt(self) -> None:
        """Give all blocks back; the tokens stay and are computed again later, to the same bits."""
        self.step_aside()
        self.computed = 0

    def step_aside(self) -> None:
        """Give all blocks back; whoever saved their content before brings it back before the next rows."""
        self.release()
        self.preempted += 1
        self.preemptions += 1
        self.draft = None
