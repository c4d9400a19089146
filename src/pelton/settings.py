"""How an engine is set up, checked when made."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from .errors import ConfigError

EXECUTORS = ("native", "reference")
KV_SHARE_OF_FREE_MEMORY = 0.4
MOST_SEQUENCES = 4096
MOST_THREADS = 1024


def default_threads() -> int:
    """One thread per processor this process may run on."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Everything an engine needs to know besides the model's own files.

    threads: None for one per available processor. context_length: None for what the model was
    trained with, as far as `kv_memory` allows. kv_memory: bytes for keys and values, None for 40 % of
    the free memory or what `max_num_seqs` full contexts need, whichever is less.
    max_num_batched_tokens: rows of one step, the budget that prompts and running sequences share.
    seed: where random numbers of requests without a seed of their own come from; None: the system.
    """

    executor: str = "native"
    threads: int | None = None
    isa: str | None = None
    context_length: int | None = None
    kv_memory: int | None = None
    kv_dtype: str = "float16"
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise ConfigError(f"must be one of {', '.join(EXECUTORS)}", field="executor", value=self.executor)
        self._check("threads", self.threads, 1, MOST_THREADS)
        self._check("context_length", self.context_length, 2, 2**24)
        self._check("kv_memory", self.kv_memory, 1, 2**50)
        self._check("max_num_seqs", self.max_num_seqs, 1, MOST_SEQUENCES)
        self._check("max_num_batched_tokens", self.max_num_batched_tokens, 1, 2**16)
        self._check("seed", self.seed, 0, 2**63 - 1)

    def _check(self, field: str, value: int | None, low: int, high: int) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"must be a whole number from {low} to {high}", field=field, value=value)

    @property
    def num_threads(self) -> int:
        return self.threads or default_threads()

    def kv_budget(self, wanted: int) -> int:
        """Bytes that may hold keys and values when `wanted` would serve every sequence in full."""
        if self.kv_memory is not None:
            return self.kv_memory
        return min(wanted, int(psutil.virtual_memory().available * KV_SHARE_OF_FREE_MEMORY))
