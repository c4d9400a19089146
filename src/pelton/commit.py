"""Logits -> tokens -> events: the second half of a step, in which sequences move on."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .decode.accept import Verifier
from .decode.finish import Finish
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
    """Turns a step's logits [R, V], in the order of the planned rows, into events."""

    roster: Roster
    sampler: Sampler
    verifier: Verifier
    kv: KVArena
    stats: EngineStats

    def commit(self, planned: Seq[Planned], logits: Logits) -> list[TokenEvent]:
        """Every sequence moves on by its rows. Those that want nothing but their next token, most of them
        in most steps, are sampled in one call."""
        plain = [item for item in planned if is_plain(item)]
        if len(plain) == len(planned):
            outcomes = self.sampler.sample(logits, [item.sequence.decode for item in plain])
            parts: Iterator[list[TokenEvent]] = map(self._plain, plain, logits, outcomes)
        else:
            parts = self._mixed(planned, plain, logits)
        return [event for part in parts for event in part]

    def _mixed(
        self, planned: Seq[Planned], plain: Seq[Planned], logits: Logits
    ) -> Iterator[list[TokenEvent]]:
        """The same where prompts or drafts run beside them."""
        ids = [item.sequence.id for item in planned]
        ends = dict(zip(ids, accumulate(map(num_rows, planned)), strict=True))
        wanted = logits
        if len(plain) < len(logits):
            wanted = logits[[ends[item.sequence.id] - 1 for item in plain]]
        chosen = self.sampler.sample(wanted, [item.sequence.decode for item in plain])
        outcomes = {item.sequence.id: outcome for item, outcome in zip(plain, chosen, strict=True)}
        for item in planned:
            end, outcome = ends[item.sequence.id], outcomes.get(item.sequence.id)
            if outcome is None:
                yield self._special(item, logits[end - num_rows(item) : end])
            else:
                yield self._plain(item, logits[end - 1], outcome)

    def fail(self, sequence: Sequence, error: PeltonError) -> TokenEvent:
        """End a sequence with an error."""
        self.roster.abort(sequence.id)
        return TokenEvent(sequence.id, None, error=error)

    def _plain(self, item: Planned, row: Logits, outcome: Outcome) -> list[TokenEvent]:
        item.sequence.advance(item.rows)
        forks = self._forks(item.sequence, row) if item.sequence.followers else []
        return forks + self._take(item.sequence, [outcome])

    def _special(self, item: Planned, logits: Logits) -> list[TokenEvent]:
        """A draft, a prompt whose log probabilities are wanted, or a prompt that does not end here."""
        sequence = item.sequence
        if sequence.draft is not None:
            return self._draft(sequence, logits)
        completes, events = completes_in(item), []
        if is_special(item):
            try:
                events.append(self._prompt(sequence, item.rows, logits))
            except RequestError as error:  # NaN among the prompt's logits: its request alone fails
                return [self.fail(sequence, error)]
        sequence.advance(item.rows)
        if completes and sequence.rules.max_tokens == 0:
            events.append(self._prompt_alone(sequence))
        elif completes:
            events += self._forks(sequence, logits[-1])
            events += self._take(sequence, [self.sampler.sample_row(logits[-1], sequence.decode)])
        return events

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
        """Siblings of a request start here: they share the prompt's KV and sample from the same row. Those
        beyond the number of places wait for their turn, and meet the prompt again in the prefix cache."""
        followers, sequence.followers = sequence.followers, []
        waiting = [follower for follower in followers if self.roster.is_live(follower.id)]
        events = []
        while waiting and self.roster.places > 0:
            follower = waiting.pop(0)
            twin = sequence.fork(follower.id, follower.decode)
            self.roster.enrol(twin)
            events += self._take(twin, [self.sampler.sample_row(row, twin.decode)])
        if waiting:
            self.roster.queue(waiting)
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
            said = (sequence.id, outcome.token, outcome.logprobs, finish)
            events.append(TokenEvent(*said, None, (), sequence.num_cached, sequence.started, hidden))
            if finish is not None:
                self.roster.abort(sequence.id)
                break
        return events


def completes_in(item: Planned) -> bool:
    """Whether the rows reach the sequence's last token, so that its next one can be chosen."""
    return item.sequence.computed + item.rows >= item.sequence.num_tokens


def is_special(item: Planned) -> bool:
    """Whether each row leaves logits behind: a draft to verify, a prompt to score."""
    sequence = item.sequence
    return sequence.draft is not None or (sequence.prompt_logprobs is not None and sequence.num_outputs == 0)


def is_plain(item: Planned) -> bool:
    """Whether the next token is all that is wanted of the rows."""
    return completes_in(item) and not is_special(item) and item.sequence.rules.max_tokens > 0


def wants_logits(item: Planned) -> bool:
    """Whether a token is chosen, or a prompt scored, by what the rows leave behind."""
    return is_special(item) or (item.sequence.rules.max_tokens > 0 and completes_in(item))


def wants_only_greatest(planned: Seq[Planned]) -> bool:
    """Whether each token is the most likely one, and nothing else is asked of the logits."""
    return all(item.sequence.decode.is_plain and item.sequence.prompt_logprobs is None for item in planned)


def num_rows(item: Planned) -> int:
    """Rows of logits that a planned sequence leaves behind."""
    return item.rows if is_special(item) else int(completes_in(item))


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
