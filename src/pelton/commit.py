"""Logits -> tokens -> events: the second half of a step, in which sequences move on."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .decode.accept import Verifier
from .decode.logprobs import prompt_logprobs
from .decode.sampler import Decoded, Outcome, Sampler
from .errors import NotFiniteError, PeltonError, RequestError
from .events import TokenEvent
from .kv import KVArena
from .sched.protocol import Planned
from .sched.sequence import Sequence
from .stats import EngineStats

Logits = NDArray[np.float32]


class Roster(Protocol):
    """Who is under way; the engine."""

    def is_live(self, sequence_id: int) -> bool: ...

    def enrol(self, twin: Sequence) -> None:
        """Take in a fork of a running sequence."""

    def abort(self, sequence_id: int) -> None: ...


@dataclass(frozen=True)
class Committer:
    """Turns a step's logits [R, V], in the order of the planned rows, into events."""

    roster: Roster
    sampler: Sampler
    verifier: Verifier
    kv: KVArena
    stats: EngineStats

    def commit(self, planned: Seq[Planned], logits: Logits) -> list[TokenEvent]:
        """Every sequence moves on by its rows. Those that want nothing but their next token, most of them
        in most steps, are sampled in one call."""
        rows = np.cumsum([0, *(num_rows(item) for item in planned)])
        plain = [index for index, item in enumerate(planned) if is_plain(item)]
        wanted = logits if len(plain) == len(logits) else logits[rows[plain]]
        chosen = self.sampler.sample(wanted, [planned[index].sequence.decode for index in plain])
        outcomes = dict(zip(plain, chosen, strict=True))
        events: list[TokenEvent] = []
        for index, item in enumerate(planned):
            mine = logits[rows[index] : rows[index + 1]]
            outcome = outcomes.get(index)
            events += self._special(item, mine) if outcome is None else self._plain(item, mine[0], outcome)
        return events

    def fail(self, sequence: Sequence, error: PeltonError) -> TokenEvent:
        """End a sequence with an error."""
        self.roster.abort(sequence.id)
        return TokenEvent(sequence.id, None, error=error)

    def _plain(self, item: Planned, row: Logits, outcome: Outcome) -> list[TokenEvent]:
        item.sequence.advance(item.count)
        return self._forks(item.sequence, row) + self._take(item.sequence, [outcome])

    def _special(self, item: Planned, logits: Logits) -> list[TokenEvent]:
        """A draft, a prompt whose log probabilities are wanted, or a prompt that does not end here."""
        sequence = item.sequence
        if sequence.draft is not None:
            return self._draft(sequence, logits)
        completes, events = completes_in(item), []
        if is_special(item):
            try:
                events.append(self._prompt(sequence, item.count, logits))
            except RequestError as error:  # NaN among the prompt's logits: its request alone fails
                return [self.fail(sequence, error)]
        sequence.advance(item.count)
        if completes:
            events += self._forks(sequence, logits[-1])
            events += self._take(sequence, [self.sampler.sample_row(logits[-1], sequence.decode)])
        return events

    def _prompt(self, sequence: Sequence, count: int, logits: Logits) -> TokenEvent:
        assert sequence.prompt_logprobs is not None
        first = max(sequence.computed, sequence.prompt_scored)  # a preempted prompt runs again
        targets = sequence.tokens[first + 1 : sequence.computed + 1 + count]
        logits = logits[first - sequence.computed :][: len(targets)]
        rows = prompt_logprobs(logits, targets.tolist(), sequence.prompt_logprobs)
        sequence.prompt_scored = first + len(targets)
        return TokenEvent(sequence.id, None, prompt_logprobs=tuple(rows))

    def _draft(self, sequence: Sequence, logits: Logits) -> list[TokenEvent]:
        draft = sequence.draft
        assert draft is not None
        span = sequence.span(sequence.missing)
        parents = None if span.parents is None else span.parents.tolist()
        accepted = self.verifier.verify(logits, span.tokens.tolist(), parents, sequence.decode)
        first = sequence.computed + 1
        self.kv.move_slots(sequence.table.array, [sequence.computed + row for row in accepted.path], first)
        sequence.draft = None
        sequence.advance(1 + len(accepted.path))
        sequence.table.shrink(sequence.computed)
        self.stats.verified(len(draft.tokens), len(accepted.path))
        return self._take(sequence, accepted.outcomes)

    def _forks(self, sequence: Sequence, row: Logits) -> list[TokenEvent]:
        """Siblings of a request start here: they share the prompt's KV and sample from the same row."""
        followers, sequence.followers = sequence.followers, []
        events = []
        for waiting in followers:
            if self.roster.is_live(waiting.id):
                twin = sequence.fork(waiting.id, waiting.decode)
                self.roster.enrol(twin)
                events += self._take(twin, [self.sampler.sample_row(row, twin.decode)])
        return events

    def _take(self, sequence: Sequence, outcomes: Seq[Outcome]) -> list[TokenEvent]:
        """Append decided tokens until the sequence ends."""
        events: list[TokenEvent] = []
        for outcome in outcomes:
            if not isinstance(outcome, Decoded):
                if isinstance(outcome, NotFiniteError):
                    sequence.spoil()
                return [*events, self.fail(sequence, outcome)]
            sequence.append(outcome.token)
            self.stats.generated += 1
            finish = sequence.rules.check(outcome.token, sequence.num_outputs)
            hidden, sequence.hidden_state = sequence.hidden_state, None
            events.append(
                TokenEvent(
                    *(sequence.id, outcome.token, outcome.logprobs, finish),
                    num_cached=sequence.num_cached,
                    started=sequence.started,
                    hidden_state=hidden,
                )
            )
            if finish is not None:
                self.roster.abort(sequence.id)
                break
        return events


def completes_in(item: Planned) -> bool:
    """Whether the rows reach the sequence's last token, so that its next one can be chosen."""
    return item.sequence.computed + item.count >= item.sequence.num_tokens


def is_special(item: Planned) -> bool:
    """Whether each row leaves logits behind: a draft to verify, a prompt to score."""
    sequence = item.sequence
    return sequence.draft is not None or (sequence.prompt_logprobs is not None and sequence.num_outputs == 0)


def is_plain(item: Planned) -> bool:
    """Whether the next token is all that is wanted of the rows."""
    return completes_in(item) and not is_special(item)


def num_rows(item: Planned) -> int:
    """Rows of logits that a planned sequence leaves behind."""
    return item.count if is_special(item) else int(completes_in(item))


def ends_of_prompts(planned: Seq[Planned]) -> list[tuple[Sequence, int]]:
    """Sequences whose prompt ends now and whose hidden state is wanted, each with its row of logits."""
    if not any(item.sequence.wants_hidden for item in planned):
        return []
    found, row = [], 0
    for item in planned:
        sequence, rows = item.sequence, num_rows(item)
        if sequence.wants_hidden and sequence.num_outputs == 0 and completes_in(item):
            # Of a draft's rows the first is the last token's own.
            found.append((sequence, row if sequence.draft is not None else row + rows - 1))
        row += rows
    return found
