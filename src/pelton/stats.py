"""What an engine has done so far, for metrics, pages and benchmarks."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

from .sched.protocol import Planned
from .spec.draft import MOST_DRAFTED


class StepRows(NamedTuple):
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
        self.rows += rows.total
        self.recent.append(rows)
        self.rows_of_steps[bisect_left(ROW_BUCKETS, rows.total)] += 1

    def begins(self, planned: Seq[Planned]) -> None:
        """Count what a step is about to run, and note when each sequence first ran."""
        prefill = decode = draft = 0
        for item in planned:
            sequence = item.sequence
            if sequence.started is None:
                sequence.started = monotonic()
            if sequence.preempted:
                self.preemptions += sequence.preempted
                sequence.preempted = 0
            if sequence.is_decoding:
                decode += 1
                draft += item.rows - 1
            else:
                prefill += item.rows
        self.took(StepRows(prefill, decode, draft))

    def verified(self, drafted: int, accepted: int) -> None:
        """Count a draft of `drafted` tokens of which `accepted` were right."""
        self.drafts += 1
        self.drafted += drafted
        self.accepted += accepted
        for place in range(accepted):
            self.accepted_at[place] += 1

    @property
    def python_share(self) -> float:
        """Share of step time spent outside the executor."""
        return 1.0 - self.executor_seconds / self.step_seconds if self.step_seconds else 0.0
