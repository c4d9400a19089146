"""Logits -> tokens -> events: the second half of a step, in which sequences move on."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import accumulate, compress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .decode.accept import Verifier, follow_greatest
from .decode.finish import Finish
from .decode.logprobs import prompt_logprobs
from .decode.sampler import Decoded, Outcome, Sampler, outcome_of
from .errors import NotFiniteError, PeltonError, RequestError
from .events import TokenEvent
from .kv import KVArena
from .sched.protocol import Planned
from .sched.sequence import Sequence
from .stats import EngineStats

Logits = NDArray[np.float32]


class Roster(Protocol):
    """Who is under way; the engine."""

    @property
    def places(self) -> int:
        """How many forks may be enrolled."""

    def is_live(self, sequence_id: int) -> bool: ...

    def queue(self, group: list[Sequence]) -> None:
        """Let the first of some siblings compute their prompt; the others follow it."""

    def enrol(self, twin: Sequence) -> None:
        """Take in a fork of a running sequence."""

    def abort(self, sequence_id: int) -> None: ...


@dataclass(frozen=True)
class Committer:
    """Turns a step's logits [R, V], in the order of the planned rows, into events; or, where no more was
    asked for, the places of the greatest of each row [R]."""

    roster: Roster
    sampler: Sampler
    verifier: Verifier
    kv: KVArena
    stats: EngineStats

    def commit(
        self, planned: Seq[Planned], logits: Logits, greatest: list[int] | None = None
    ) -> list[TokenEvent]:
        """Every sequence moves on by its rows. All next tokens are sampled in one call: most sequences want
        nothing else in most steps."""
        ends = list(accumulate(map(num_rows, planned)))
        choosing = [chooses(item) for item in planned]
        last = [end - 1 for end in compress(ends, choosing)]
        if greatest is None:
            requests = [item.sequence.decode for item in compress(planned, choosing)]
            outcomes = self.sampler.sample(logits if len(last) == len(logits) else logits[last], requests)
        else:
            outcomes = [outcome_of(greatest[row]) for row in last]
        chosen = iter(outcomes)
        events: list[TokenEvent] = []
        for item, is_chosen, end in zip(planned, choosing, ends, strict=True):
            if item.sequence.draft is not None:
                own = slice(end - item.rows, end)
                self._draft(item.sequence, logits[own], None if greatest is None else greatest[own], events)
            else:
                self._advance(item, next(chosen) if is_chosen else None, logits, end, events)
        return events

    def commit_passes(self, planned: Seq[Planned], found: Seq[list[int]]) -> list[TokenEvent]:
        """The same for several passes over the same rows, each of which left the places of the greatest. Who
        ends takes nothing of later passes."""
        nothing = np.zeros((0, 0), dtype=np.float32)
        events = self.commit(planned, nothing, found[0])
        for tokens in found[1:]:
            live = [self.roster.is_live(item.sequence.id) for item in planned]
            events += self.commit(list(compress(planned, live)), nothing, list(compress(tokens, live)))
        return events

    def fail(self, sequence: Sequence, error: PeltonError) -> TokenEvent:
        """End a sequence with an error."""
        self.roster.abort(sequence.id)
        return TokenEvent(sequence.id, None, error=error)

    def _advance(
        self, item: Planned, outcome: Outcome | None, logits: Logits, end: int, events: list[TokenEvent]
    ) -> None:
        """`outcome`: of its next token, unless its prompt does not end here, or nothing follows that. Its
        rows of `logits` end before `end`."""
        sequence, rows = item
        if scores_prompt(sequence):
            try:
                events.append(self._prompt(sequence, rows, logits[end - rows : end]))
            except RequestError as error:  # NaN among the prompt's logits: its request alone fails
                events.append(self.fail(sequence, error))
                return
        sequence.advance(rows)
        if outcome is not None:
            if sequence.followers:
                self._fork(sequence, logits[end - 1], events)
            self._take(sequence, outcome, events)
        elif sequence.rules.max_tokens == 0 and sequence.computed >= sequence.num_tokens:
            events.append(self._prompt_alone(sequence))

    def _prompt_alone(self, sequence: Sequence) -> TokenEvent:
        """The end of a request for no token: its prompt's hidden state, if that is what it wants."""
        hidden = sequence.hidden_state
        if hidden is not None and not np.isfinite(hidden).all():
            sequence.spoil()
            error = NotFiniteError("the hidden state is not finite: the model computed NaN")
            return self.fail(sequence, error)
        self.roster.abort(sequence.id)
        about = (sequence.num_cached, sequence.started, hidden)
        return TokenEvent(sequence.id, None, None, Finish("length"), None, (), *about)

    def _prompt(self, sequence: Sequence, count: int, logits: Logits) -> TokenEvent:
        assert sequence.prompt_logprobs is not None
        first = max(sequence.computed, sequence.prompt_scored)  # a preempted prompt runs again
        targets = sequence.tokens[first + 1 : sequence.computed + 1 + count]
        logits = logits[first - sequence.computed :][: len(targets)]
        rows = prompt_logprobs(logits, targets.tolist(), sequence.prompt_logprobs)
        sequence.prompt_scored = first + len(targets)
        return TokenEvent(sequence.id, None, prompt_logprobs=tuple(rows))

    def _draft(
        self, sequence: Sequence, logits: Logits, greatest: list[int] | None, events: list[TokenEvent]
    ) -> None:
        draft = sequence.draft
        assert draft is not None
        span = sequence.span(sequence.missing)
        parents = None if span.parents is None else span.parents.tolist()
        tokens = span.tokens.tolist()
        if greatest is None:
            accepted = self.verifier.verify(logits, tokens, parents, sequence.decode)
        else:
            accepted = follow_greatest(greatest, tokens, parents)
        first = sequence.computed + 1
        self.kv.move_slots(sequence.table.array, [sequence.computed + row for row in accepted.path], first)
        sequence.draft = None
        sequence.advance(1 + len(accepted.path))
        sequence.table.shrink(sequence.computed)
        sequence.acceptance.saw(len(draft.tokens), len(accepted.path))
        said = 0
        for outcome in accepted.outcomes:
            said += 1
            if not self._take(sequence, outcome, events):
                break
        self.stats.verified(len(draft.tokens), min(said, len(accepted.path)))

    def _fork(self, sequence: Sequence, row: Logits, events: list[TokenEvent]) -> None:
        """Siblings of a request start here: they share the prompt's KV and sample from the same row. Those
        beyond the number of places wait for their turn, and meet the prompt again in the prefix cache."""
        followers, sequence.followers = sequence.followers, []
        waiting = [follower for follower in followers if self.roster.is_live(follower.id)]
        while waiting and self.roster.places > 0:
            follower = waiting.pop(0)
            twin = sequence.fork(follower.id, follower.decode)
            self.roster.enrol(twin)
            self._take(twin, self.sampler.sample_row(row, twin.decode), events)
        if waiting:
            self.roster.queue(waiting)

    def _take(self, sequence: Sequence, outcome: Outcome, events: list[TokenEvent]) -> bool:
        """Append a decided token; whether the sequence goes on."""
        if not isinstance(outcome, Decoded):
            if isinstance(outcome, NotFiniteError):
                sequence.spoil()
            events.append(self.fail(sequence, outcome))
            return False
        token, logprobs = outcome
        sequence.append(token)
        self.stats.generated += 1
        finish = sequence.rules.check(token, sequence.num_outputs)
        hidden, sequence.hidden_state = sequence.hidden_state, None
        cached, started = sequence.num_cached, sequence.started
        events.append(TokenEvent(sequence.id, token, logprobs, finish, None, (), cached, started, hidden))
        if finish is not None:
            self.roster.abort(sequence.id)
        return finish is None


def completes_in(item: Planned) -> bool:
    """Whether the rows reach the sequence's last token, so that its next one can be chosen."""
    return item.sequence.computed + item.rows >= item.sequence.num_tokens


def scores_prompt(sequence: Sequence) -> bool:
    """Whether log probabilities of the prompt are wanted, which each of its rows leaves logits for."""
    return sequence.prompt_logprobs is not None and sequence.num_outputs == 0


def chooses(item: Planned) -> bool:
    """Whether a next token is sampled from the last row's logits."""
    sequence, rows = item
    reaches_end = sequence.computed + rows >= sequence.num_tokens
    return reaches_end and sequence.draft is None and sequence.rules.max_tokens > 0


def wants_logits(item: Planned) -> bool:
    """Whether a token is chosen, a draft verified or a prompt scored by what the rows leave behind."""
    return chooses(item) or item.sequence.draft is not None or scores_prompt(item.sequence)


def wants_only_greatest(planned: Seq[Planned], exact: bool) -> bool:
    """Whether each token is the most likely one, and nothing else is asked of the logits: no sibling takes
    its first token from them, and no draft is verified otherwise than `exact`-ly by them."""
    sequences = [item.sequence for item in planned]
    return all(
        sequence.decode.is_plain
        and sequence.prompt_logprobs is None
        and (exact or sequence.draft is None)
        and not sequence.followers
        for sequence in sequences
    )


def ends_of(planned: Seq[Planned]) -> frozenset[int]:
    """Tokens with which one of the sequences may end."""
    rules = [item.sequence.rules for item in planned]
    return frozenset().union(*(own.end_token_ids | own.stop_token_ids for own in rules))


def num_rows(item: Planned) -> int:
    """Rows of logits that a planned sequence leaves behind: all of a draft to verify or a prompt to score."""
    sequence, rows = item
    if sequence.draft is not None or scores_prompt(sequence):
        return rows
    return int(sequence.computed + rows >= sequence.num_tokens)


def ends_of_prompts(planned: Seq[Planned]) -> list[tuple[Sequence, int]]:
    """Sequences whose prompt ends now and whose hidden state is wanted, each with its row of logits."""
    if not any(item.sequence.wants_hidden for item in planned):
        return []
    found, row = [], 0
    for item in planned:
        row += num_rows(item)
        if item.sequence.wants_hidden and item.sequence.num_outputs == 0 and completes_in(item):
            found.append((item.sequence, row - 1))
    return found
