"""What is seen of an engine from outside: its facts, its load, and a closer look: what its last steps ran,
and who has which KV block."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from ...engine import Engine
from ...kv import DiskTier

FREE, PRIVATE, SHARED, CACHED = "free", "private", "shared", "cached"


@dataclass(frozen=True)
class EngineFacts:
    """What does not change while an engine runs."""

    context_length: int
    vocab_size: int
    max_num_seqs: int


@dataclass(frozen=True)
class DiskLoad:
    """The prefix cache's folder: blocks and bytes in it, and what was done, in blocks, as DiskStats says."""

    blocks: int
    bytes_used: int
    budget_bytes: int
    loaded: int
    written: int
    failed: int
    dropped: int
    broken: int
    strange: int


@dataclass(frozen=True)
class EngineLoad:
    """What an engine is busy with: sequences that run and wait; KV blocks in all and free; and what it
    has done since it started, as EngineStats says."""

    running: int
    waiting: int
    kv_blocks: int
    kv_free: int
    rows: int = 0
    preemptions: int = 0
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    accepted_at: tuple[int, ...] = ()
    rows_of_steps: tuple[int, ...] = ()
    disk: DiskLoad | None = None

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return 1.0 - self.kv_free / self.kv_blocks


def facts_of(engine: Engine) -> EngineFacts:
    """What the HTTP side needs to know of an engine, once."""
    return EngineFacts(engine.context_length, engine.executor.plan.vocab_size, engine.max_num_seqs)


def load_of(engine: Engine) -> EngineLoad:
    """An engine's load now, as seen from the thread that steps it."""
    scheduler, pool, stats = engine.scheduler, engine.pool, engine.stats
    return EngineLoad(
        len(scheduler.running),
        scheduler.num_waiting,
        pool.num_blocks,
        pool.num_free,
        stats.rows,
        stats.preemptions,
        stats.drafts,
        stats.drafted,
        stats.accepted,
        tuple(filter(None, stats.accepted_at)),  # they only fall: after the first 0 come zeros
        tuple(stats.rows_of_steps),
        None if engine.disk is None else _disk_load(engine.disk),
    )


def _disk_load(disk: DiskTier) -> DiskLoad:
    stats = disk.stats
    return DiskLoad(
        disk.num_blocks,
        disk.bytes_used,
        disk.budget_bytes,
        stats.loaded,
        stats.written,
        stats.failed,
        stats.dropped,
        stats.broken,
        stats.strange,
    )


@dataclass(frozen=True)
class EngineView:
    """steps: rows of prompts, of next tokens and of drafts in each of the last steps, the latest last.
    blocks: the KV blocks by number, as runs of (kind, how many). A block is private to one sequence, shared
    by several, or with no sequence and kept by the prefix cache."""

    steps: tuple[tuple[int, int, int], ...]
    blocks: tuple[tuple[str, int], ...]


def view_of(engine: Engine) -> EngineView:
    """The engine as it is, seen from the thread that steps it."""
    steps = tuple((step.prefill, step.decode, step.draft) for step in list(engine.stats.recent))
    return EngineView(steps, _runs(engine))


def _runs(engine: Engine) -> tuple[tuple[str, int], ...]:
    uses = [0] * engine.pool.num_blocks
    for table in engine.tables:
        for block in table.blocks:
            uses[block] += 1
    kinds = (_kind(count, engine.pool.rests(block)) for block, count in enumerate(uses))
    return tuple((kind, sum(1 for _ in run)) for kind, run in groupby(kinds))


def _kind(uses: int, rests: bool) -> str:
    if uses > 1:
        return SHARED
    if uses == 1:
        return PRIVATE
    return CACHED if rests else FREE
