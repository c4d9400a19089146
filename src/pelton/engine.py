"""The loop: schedule -> batch -> run -> decode -> commit. One loop, no phases."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from time import monotonic, perf_counter

import numpy as np
from numpy.typing import NDArray

from .batch import make_batch
from .config import SamplingParams
from .decode.accept import CoupledVerifier, Verifier
from .decode.finish import Finish, FinishRules
from .decode.logprobs import TokenLogprobs, prompt_logprobs
from .decode.processor import RequestTokens
from .decode.request import DecodeRequest
from .decode.sampler import Decoded, Outcome, Sampler
from .errors import NotFiniteError, OutOfBlocksError, PeltonError, RequestError
from .exec.protocol import Executor
from .hidden import keep_hidden_states
from .kv import BlockPool, BlockTable, DiskTier, EvictionPolicy, KVArena, LeastRecentlyUsed, PrefixCache
from .sched.protocol import Planned, Scheduler
from .sched.registry import SchedulerChoice, scheduler_for
from .sched.sequence import Sequence
from .spec.draft import Drafter
from .terms import ORDINARY, RequestTerms
from .types import I32

MOST_DRAFTED = 64


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token of a sequence, or its end. Every sequence ends with exactly one event whose
    `finish` or `error` is set; it carries the last token unless `token` is None."""

    sequence: int
    token: int | None
    logprobs: TokenLogprobs | None = None
    finish: Finish | None = None
    error: PeltonError | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    num_cached: int = 0
    started: float | None = None
    hidden_state: tuple[float, ...] | None = None

    @property
    def is_last(self) -> bool:
        return self.finish is not None or self.error is not None


@dataclass(frozen=True, slots=True)
class StepRows:
    """What one step ran: rows of prompts, of one next token each, and of drafts to verify."""

    prefill: int
    decode: int
    draft: int

    @property
    def total(self) -> int:
        return self.prefill + self.decode + self.draft


STEPS_KEPT = 64
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Upper ends of the histogram of rows a step; one more counts what is beyond."""


@dataclass
class EngineStats:
    """Running totals: seconds of whole steps and of the executor within them, and what they did."""

    steps: int = 0
    step_seconds: float = 0.0
    executor_seconds: float = 0.0
    rows: int = 0
    generated: int = 0
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    preemptions: int = 0
    accepted_at: list[int] = field(default_factory=lambda: [0] * MOST_DRAFTED)
    """How many drafts were accepted at least up to position i."""
    rows_of_steps: list[int] = field(default_factory=lambda: [0] * (len(ROW_BUCKETS) + 1))
    recent: deque[StepRows] = field(default_factory=lambda: deque(maxlen=STEPS_KEPT))

    def took(self, rows: StepRows) -> None:
        """Count a step's rows."""
        self.recent.append(rows)
        self.rows_of_steps[bisect_left(ROW_BUCKETS, rows.total)] += 1

    @property
    def python_share(self) -> float:
        """Share of step time spent outside the executor."""
        return 1.0 - self.executor_seconds / self.step_seconds if self.step_seconds else 0.0


@dataclass
class Engine:
    """Runs sequences to their end. Not thread-safe: one thread calls add, abort and step."""

    executor: Executor
    kv: KVArena
    context_length: int
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    drafter: Drafter | None = None
    verifier: Verifier = field(default_factory=lambda: CoupledVerifier(Sampler()))
    sampler: Sampler = field(default_factory=Sampler)
    stats: EngineStats = field(default_factory=EngineStats)
    scheduling: SchedulerChoice = field(default_factory=SchedulerChoice)
    prefix_cache: bool = True
    eviction: EvictionPolicy = field(default_factory=LeastRecentlyUsed)
    disk: DiskTier | None = None

    def __post_init__(self) -> None:
        self.pool = BlockPool(self.kv.num_blocks)
        self.prefixes = PrefixCache(self.pool, self.eviction, self.disk) if self.prefix_cache else None
        self.scheduler: Scheduler = scheduler_for(
            self.scheduling, self.pool, self.kv, self.max_num_seqs, self.max_num_batched_tokens
        )
        self._sampler = self.sampler
        self._sequences: dict[int, Sequence] = {}
        self._next_id = 0

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    def add(
        self,
        prompt: I32,
        params: SamplingParams,
        tokens: RequestTokens,
        seed: int,
        terms: RequestTerms = ORDINARY,
    ) -> list[int]:
        """Queue a request; the ids of its `params.n` sequences. Raises RequestError if it cannot run."""
        vocab = self.executor.plan.vocab_size
        params.validate_for(vocab, self.context_length, len(prompt))
        rules = FinishRules.from_params(params, tokens, self.context_length, len(prompt))
        prompt_list = prompt.tolist()
        group = [
            self._make(prompt, prompt_list, params, tokens, rules, seed, stream, terms)
            for stream in range(params.n)
        ]
        group[0].followers = group[1:]
        self.scheduler.add(group[0])
        return [sequence.id for sequence in group]

    def _make(
        self,
        prompt: I32,
        prompt_list: list[int],
        params: SamplingParams,
        tokens: RequestTokens,
        rules: FinishRules,
        seed: int,
        stream: int,
        terms: RequestTerms,
    ) -> Sequence:
        decode = DecodeRequest.from_params(params, tokens, prompt_list, seed, stream)
        table = BlockTable(self.pool, self.kv.copy_block)
        wanted = params.prompt_logprobs if stream == 0 else None
        prefix = None if self.prefixes is None else self.prefixes.open(table, terms.cache_salt)
        sequence = Sequence(
            *(self._next_id, prompt, decode, rules, table, terms),
            prompt_logprobs=wanted,
            prefix=prefix,
            wants_hidden=params.hidden_state,
        )
        self._sequences[sequence.id] = sequence
        self._next_id += 1
        return sequence

    def abort(self, sequence_id: int) -> None:
        """Drop a sequence without an event; unknown or finished ids are ignored."""
        sequence = self._sequences.pop(sequence_id, None)
        if sequence is None:
            return
        live = [s for s in sequence.followers if s.id in self._sequences]
        if live:  # its siblings still need the prompt: the first takes over
            heir, heir.followers = live[0], live[1:]
            self.scheduler.add(heir)
        self.scheduler.remove(sequence)

    def step(self) -> list[TokenEvent]:
        """Run one forward pass for whoever is next and commit what it decided."""
        start = perf_counter()
        self._draft()
        schedule = self.scheduler.schedule()
        events = [self._refuse(sequence) for sequence in schedule.refused]
        if schedule.planned:
            self._count(schedule.planned)
            batch = make_batch([p.sequence.span(p.count) for p in schedule.planned])
            began = perf_counter()
            forward = self.executor.begin(batch, self.kv)
            asking = self._asking(schedule.planned)
            if asking:
                keep_hidden_states(forward, self.executor.plan, batch, asking)
            forward.advance()
            logits = forward.logits()
            took = perf_counter() - began
            self.stats.executor_seconds += took
            self.stats.rows += batch.num_rows
            self.scheduler.observe(batch.num_rows, took)
            events += self._commit(schedule.planned, logits)
        self.stats.steps += 1
        self.stats.step_seconds += perf_counter() - start
        return events

    def _count(self, planned: list[Planned]) -> None:
        prefill = decode = draft = 0
        for item in planned:
            sequence = item.sequence
            if sequence.started is None:
                sequence.started = monotonic()
            if sequence.preempted:
                self.stats.preemptions += sequence.preempted
                sequence.preempted = 0
            if sequence.is_decoding:
                decode += 1
                draft += item.count - 1
            else:
                prefill += item.count
        self.stats.took(StepRows(prefill, decode, draft))

    @property
    def tables(self) -> list[BlockTable]:
        """The KV tables of all sequences."""
        return [sequence.table for sequence in list(self._sequences.values())]

    def close(self) -> None:
        """Save cached prefixes where there is a folder for them, stop the executor and free the model."""
        if self.prefixes is not None:
            self.prefixes.close()
        self.executor.close()

    def check(self) -> None:
        """Assert that KV blocks and references agree; for tests and idle moments."""
        self.pool.check([sequence.table for sequence in self._sequences.values()])
        if self.prefixes is not None:
            self.prefixes.check()

    def _draft(self) -> None:
        if self.drafter is None:
            return
        for sequence in self.scheduler.running:
            # The last token needs no draft, and a draft must not outgrow the context.
            most = sequence.rules.max_tokens - sequence.num_outputs - 1
            if sequence.is_decoding and most > 0:
                sequence.draft = self.drafter.propose(sequence.tokens, min(most, MOST_DRAFTED))

    def _refuse(self, sequence: Sequence) -> TokenEvent:
        error = OutOfBlocksError(
            f"{sequence.num_tokens} tokens do not fit the {self.pool.num_blocks} KV blocks;"
            " raise kv_memory or shorten the request"
        )
        return self._end(sequence, TokenEvent(sequence.id, None, error=error))

    def _end(self, sequence: Sequence, event: TokenEvent) -> TokenEvent:
        self.abort(sequence.id)
        return event

    def _commit(self, planned: list[Planned], logits: NDArray[np.float32]) -> list[TokenEvent]:
        """Logits [R, V], in the order of the planned rows -> events; sequences move on."""
        if len(planned) == len(logits) and all(map(self._is_plain, planned)):  # the common case: one row each
            outcomes = self._sampler.sample(logits, [p.sequence.decode for p in planned])
            events = []
            for item, row, outcome in zip(planned, logits, outcomes, strict=True):
                item.sequence.advance(item.count)
                events += self._forks(item.sequence, row) + self._take(item.sequence, [outcome])
            return events
        events, row_at = [], 0
        for item in planned:
            num_rows = self._num_rows(item)
            events += self._commit_one(item, logits[row_at : row_at + num_rows])
            row_at += num_rows
        return events

    def _is_plain(self, item: Planned) -> bool:
        return self._completes(item) and not self._is_special(item)

    def _is_special(self, item: Planned) -> bool:
        sequence = item.sequence
        return sequence.draft is not None or (
            sequence.prompt_logprobs is not None and sequence.num_outputs == 0
        )

    def _completes(self, item: Planned) -> bool:
        return item.sequence.computed + item.count >= item.sequence.num_tokens

    def _asking(self, planned: list[Planned]) -> list[tuple[Sequence, int]]:
        """Sequences whose prompt ends in this step and whose hidden state is wanted, each with its row."""
        if not any(item.sequence.wants_hidden for item in planned):
            return []
        found, row = [], 0
        for item in planned:
            sequence, rows = item.sequence, self._num_rows(item)
            if sequence.wants_hidden and sequence.num_outputs == 0 and self._completes(item):
                # Of a draft's rows the first is the last token's own.
                found.append((sequence, row if sequence.draft is not None else row + rows - 1))
            row += rows
        return found

    def _num_rows(self, item: Planned) -> int:
        return item.count if self._is_special(item) else int(self._completes(item))

    def _commit_one(self, item: Planned, logits: NDArray[np.float32]) -> list[TokenEvent]:
        sequence = item.sequence
        if sequence.draft is not None:
            return self._commit_draft(sequence, logits)
        completes = self._completes(item)
        events = []
        if self._is_special(item):
            try:
                events.append(self._prompt_event(sequence, item.count, logits))
            except RequestError as error:  # NaN among the prompt's logits: its request alone fails
                return [self._end(sequence, TokenEvent(sequence.id, None, error=error))]
        sequence.advance(item.count)
        if completes:
            events += self._forks(sequence, logits[-1])
            events += self._take(sequence, [self._sampler.sample_row(logits[-1], sequence.decode)])
        return events

    def _prompt_event(self, sequence: Sequence, count: int, logits: NDArray[np.float32]) -> TokenEvent:
        assert sequence.prompt_logprobs is not None
        first = max(sequence.computed, sequence.prompt_scored)  # a preempted prompt runs again
        targets = sequence.tokens[first + 1 : sequence.computed + 1 + count]
        logits = logits[first - sequence.computed :][: len(targets)]
        rows = prompt_logprobs(logits, targets.tolist(), sequence.prompt_logprobs)
        sequence.prompt_scored = first + len(targets)
        return TokenEvent(sequence.id, None, prompt_logprobs=tuple(rows))

    def _commit_draft(self, sequence: Sequence, logits: NDArray[np.float32]) -> list[TokenEvent]:
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
        self.stats.drafts += 1
        self.stats.drafted += len(draft.tokens)
        self.stats.accepted += len(accepted.path)
        for place in range(len(accepted.path)):
            self.stats.accepted_at[place] += 1
        return self._take(sequence, accepted.outcomes)

    def _forks(self, sequence: Sequence, row: NDArray[np.float32]) -> list[TokenEvent]:
        """Siblings of a request start here: they share the prompt's KV and sample from the same row."""
        followers, sequence.followers = sequence.followers, []
        events = []
        for waiting in followers:
            if waiting.id in self._sequences:
                twin = sequence.fork(waiting.id, waiting.decode)
                self._sequences[twin.id] = twin
                self.scheduler.adopt(twin)
                events += self._take(twin, [self._sampler.sample_row(row, twin.decode)])
        return events

    def _take(self, sequence: Sequence, outcomes: Seq[Outcome]) -> list[TokenEvent]:
        """Append decided tokens until the sequence ends."""
        events: list[TokenEvent] = []
        for outcome in outcomes:
            if not isinstance(outcome, Decoded):
                if isinstance(outcome, NotFiniteError):
                    sequence.spoil()
                return [*events, self._end(sequence, TokenEvent(sequence.id, None, error=outcome))]
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
                self.abort(sequence.id)
                break
        return events
