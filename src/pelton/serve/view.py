"""A closer look at an engine than its load: what its last steps ran, and who has which KV block."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from ..engine import Engine

FREE, PRIVATE, SHARED, CACHED = "free", "private", "shared", "cached"


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
