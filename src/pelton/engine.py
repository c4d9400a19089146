"""The loop: schedule -> batch -> run -> decode -> commit. One loop, no phases."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from math import inf
from time import perf_counter

import numpy as np

from .batch import make_batch
from .commit import Committer, ends_of, ends_of_prompts, wants_logits, wants_only_greatest
from .config import SamplingParams
from .decode.accept import CoupledVerifier, Verifier
from .decode.finish import FinishRules
from .decode.processor import RequestTokens
from .decode.request import DecodeRequest
from .decode.sampler import Sampler
from .errors import OutOfBlocksError
from .events import TokenEvent
from .exec.protocol import F32, Executor, Until
from .hidden import keep_hidden_states
from .kv import (
    BlockPool,
    BlockTable,
    DiskTier,
    EvictionPolicy,
    KVArena,
    LeastRecentlyUsed,
    Prefix,
    PrefixCache,
)
from .sched.protocol import Planned, Scheduler
from .sched.registry import SchedulerChoice, scheduler_for
from .sched.sequence import Sequence
from .spec.budget import DraftBudget, FixedBudget
from .spec.draft import MOST_DRAFTED, Drafter
from .stats import EngineStats, StepRows
from .terms import ORDINARY, RequestTerms
from .types import I32, Batch

MOST_PASSES = 16
"""In one call: then at most a sixteenth of what Python costs a step is left."""


@dataclass
class Engine:
    """Runs sequences to their end. Not thread-safe: one thread calls add, abort and step."""

    executor: Executor
    kv: KVArena
    context_length: int
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    drafter: Drafter | None = None
    draft_budget: DraftBudget = field(default_factory=FixedBudget)
    verifier: Verifier = field(default_factory=lambda: CoupledVerifier(Sampler()))
    sampler: Sampler = field(default_factory=Sampler)
    stats: EngineStats = field(default_factory=EngineStats)
    scheduling: SchedulerChoice = field(default_factory=SchedulerChoice)
    prefix_cache: bool = True
    prefix_window: int | None = None
    eviction: EvictionPolicy = field(default_factory=LeastRecentlyUsed)
    disk: DiskTier | None = None

    def __post_init__(self) -> None:
        self.pool = BlockPool(self.kv.num_blocks)
        self.prefixes = (
            PrefixCache(self.pool, self.eviction, self.disk, self.prefix_window)
            if self.prefix_cache
            else None
        )
        self.scheduler: Scheduler = scheduler_for(
            self.scheduling, self.pool, self.kv, self.max_num_seqs, self.max_num_batched_tokens
        )
        self._committer = Committer(self, self.sampler, self.verifier, self.kv, self.stats)
        self._sequences: dict[int, Sequence] = {}
        self._next_id = 0
        self._no_logits = np.zeros((0, self.executor.plan.vocab_size), dtype=np.float32)
        self._pass_seconds = inf  # of the last pass
        self._open: set[int] = set()  # sequences that may draft, but have not in this step
        self._shortest = 0 if self.drafter is None else self.drafter.shortest

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
        self._next_id += params.n
        self._sequences.update((sequence.id, sequence) for sequence in group)
        try:
            self.queue(group)
        except BaseException:  # nothing is left behind by a request that was never taken
            for sequence in group:
                del self._sequences[sequence.id]
            self.scheduler.remove(group[0])
            raise
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
        prefix = None if self.prefixes is None else Prefix(self.prefixes, table, terms.cache_salt)
        return Sequence(
            *(self._next_id + stream, prompt, decode, rules, table, terms),
            prompt_logprobs=wanted,
            prefix=prefix,
            wants_hidden=params.hidden_state,
        )

    def is_live(self, sequence_id: int) -> bool:
        """Whether a sequence was added and has not ended."""
        return sequence_id in self._sequences

    @property
    def places(self) -> int:
        """How many forks may be enrolled."""
        return self.scheduler.places

    def enrol(self, twin: Sequence) -> None:
        """Take in a fork of a running sequence: it runs from the next step on."""
        self._sequences[twin.id] = twin
        self.scheduler.adopt(twin)

    def queue(self, group: list[Sequence]) -> None:
        """Let the first of some siblings compute their prompt; the others follow it."""
        leader, leader.followers = group[0], group[1:]
        self.scheduler.add(leader)

    def abort(self, sequence_id: int) -> None:
        """Drop a sequence without an event; unknown or finished ids are ignored."""
        sequence = self._sequences.pop(sequence_id, None)
        if sequence is None:
            return
        live = [s for s in sequence.followers if s.id in self._sequences]
        if live:  # its siblings still need the prompt: the first takes over
            self.queue(live)
        self.scheduler.remove(sequence)

    def step(self, patience: float = 0.0) -> list[TokenEvent]:
        """Run one forward pass for whoever is next and commit what it decided; or several in one call, where
        all want the most likely token, nobody waits, and they take no more than `patience` seconds."""
        start = perf_counter()
        self._draft()
        schedule = self.scheduler.schedule()
        events = [self._refuse(sequence) for sequence in schedule.refused]
        if schedule.planned:
            self.stats.begins(schedule.planned)
            only_greatest = wants_only_greatest(schedule.planned, self.verifier.exact)
            passes = self._passes(schedule.planned, patience) if only_greatest else 1
            spans = [p.sequence.span(p.rows) for p in schedule.planned]
            batch = make_batch(spans, only_greatest=only_greatest)
            began = perf_counter()
            logits, found = self._run(schedule.planned, batch, passes)
            took = perf_counter() - began
            self.stats.executor_seconds += took
            ran = 1 if found is None else len(found)
            self._observe(batch.num_rows, took / ran, ran)
            if found is None:
                events += self._committer.commit(schedule.planned, logits)
            else:
                events += self._committer.commit_passes(schedule.planned, found)
        self.stats.step_seconds += perf_counter() - start
        return events

    def _run(self, planned: Seq[Planned], batch: Batch, passes: int) -> tuple[F32, list[list[int]] | None]:
        """The logits [R, V]; or none, and of each pass the places of the greatest [passes][R], where no more
        is wanted."""
        forward = self.executor.begin(batch, self.kv)
        asking = ends_of_prompts(planned)
        if asking:
            keep_hidden_states(forward, self.executor.plan, batch, asking)
            if not any(map(wants_logits, planned)):
                return self._no_logits, None
        if passes > 1:
            return self._no_logits, forward.feed_back(passes, self._until(planned))
        forward.advance()
        if batch.only_greatest:
            return self._no_logits, [forward.greatest()]
        return forward.logits(), None

    def _passes(self, planned: Seq[Planned], patience: float) -> int:
        """How many passes may run in one call: multi-step scheduling, as vLLM 0.6 had it.

        Python's data has left the caches by the time the weights have passed through them, so it costs one
        sequence 6 % of each step (SmolLM2-135M).
        """
        sequences = [item.sequence for item in planned]
        if patience <= self._pass_seconds or any(sequence.draft is not None for sequence in sequences):
            return 1
        if self._open and self._shortest == 0:
            return 1
        if not all(sequence.is_decoding and not sequence.wants_hidden for sequence in sequences):
            return 1
        left = min(sequence.rules.max_tokens - sequence.num_outputs for sequence in sequences)
        most = min(left, int(patience / max(self._pass_seconds, patience / MOST_PASSES)))
        return self.scheduler.ahead(planned, most) if most > 1 else 1

    def _until(self, planned: Seq[Planned]) -> Until:
        """What ends several passes: a sequence's end, and a text that a draft can be made of again."""
        rows = (row for row, item in enumerate(planned) if item.sequence.id in self._open)
        texts = {row: planned[row].sequence.tokens for row in rows}
        return Until(ends_of(planned), texts, self._shortest)

    def _observe(self, rows: int, seconds: float, passes: int) -> None:
        self._pass_seconds = seconds
        self.draft_budget.observe(rows, seconds)
        for number in range(passes):
            self.stats.steps += 1
            self.scheduler.observe(rows, seconds)
            if number > 0:
                self.stats.took(StepRows(0, rows, 0))

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
        self._open.clear()
        if self.drafter is None:
            return
        running = self.scheduler.running
        together = min(len(running), self.max_num_seqs)
        for sequence in running:
            sequence.draft = None  # of a step that it had no part in
            # A prompt's last token is no draft's business: its siblings fork there.
            if not sequence.is_decoding or not sequence.num_outputs:
                continue
            # The last token needs no draft, and a draft must not outgrow the context.
            left = sequence.rules.max_tokens - sequence.num_outputs - 1
            most = min(left, MOST_DRAFTED, self.draft_budget.most(sequence.acceptance, together))
            if most > 0:
                sequence.draft = self.drafter.propose(sequence.tokens, most)
                if sequence.draft is None:
                    self._open.add(sequence.id)
            else:
                sequence.acceptance.rested()

    def _refuse(self, sequence: Sequence) -> TokenEvent:
        error = OutOfBlocksError(
            f"{sequence.num_tokens} tokens do not fit the {self.pool.num_blocks} KV blocks;"
            " raise kv_memory or shorten the request"
        )
        return self._committer.fail(sequence, error)
