"""How an engine is set up, checked when made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil

from .errors import ConfigError

EXECUTORS = ("native", "reference")
SCHEDULERS = (
    "token-budget", "mlfq", "predicted-length", "skip-predict", "program", "prefix-groups", "deadline",
    "fair",
)  # fmt: skip
PREFIX_EVICTIONS = ("lru", "predicted")
DRAFTS = ("ngram", "off")
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
    the free memory or what `max_num_seqs` full contexts need, whichever is less, of which the prefix cache
    then fills no more than comes to be asked for again (docs/kv.md). kv_dtype: float32, float16,
    bfloat16, int8, or auto: what activations are rounded to where they meet the model's weights, if the
    processor multiplies that and keys are suited to it (docs/design.md), else the next finer.
    max_num_batched_tokens: rows of one step, the budget that prompts and running sequences share.
    scheduler: the order in which requests run (docs/scheduling.md). tenant_weights: shares of tenants under
    the scheduler "fair", 1 where nothing is said. swap_memory: bytes for keys and values of preempted
    sequences, None for a quarter of what running ones have; 0: they are computed again.
    prefix_cache: whether what was computed is kept for later requests that begin alike. prefix_eviction: what
    gives way when memory runs short, the least recently used or what is predicted not to come back.
    drafts: where guesses of the next tokens come from, which are computed together and kept as far as they
    are right: "ngram", from earlier in the same text, or "off"; the text is the same (docs/scheduling.md).
    kv_cache_dir: a folder for prefixes to survive in, at most kv_disk bytes of them; None: memory only.
    tuning_folder: where the native executor remembers what it measured to be fastest on this machine; None
    measures nothing, which changes no text.
    seed: where random numbers of requests without a seed of their own come from; None: the system.
    """

    executor: str = "native"
    threads: int | None = None
    isa: str | None = None
    context_length: int | None = None
    kv_memory: int | None = None
    kv_dtype: str = "auto"
    max_num_seqs: int = 128
    max_num_batched_tokens: int = 512
    scheduler: str = "token-budget"
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    swap_memory: int | None = None
    drafts: str = "ngram"
    tuning_folder: str | None = None
    seed: int | None = None

    prefix_cache: bool = True
    prefix_eviction: str = "lru"
    kv_cache_dir: str | None = None
    kv_disk: int = 4 << 30

    def __post_init__(self) -> None:
        self._check_cache()
        if self.executor not in EXECUTORS:
            raise ConfigError(f"must be one of {', '.join(EXECUTORS)}", field="executor", value=self.executor)
        if self.drafts not in DRAFTS:
            raise ConfigError(f"must be one of {', '.join(DRAFTS)}", field="drafts", value=self.drafts)
        self._check("threads", self.threads, 1, MOST_THREADS)
        self._check("context_length", self.context_length, 2, 2**24)
        self._check("kv_memory", self.kv_memory, 1, 2**50)
        self._check("max_num_seqs", self.max_num_seqs, 1, MOST_SEQUENCES)
        self._check("max_num_batched_tokens", self.max_num_batched_tokens, 1, 2**16)
        self._check("swap_memory", self.swap_memory, 0, 2**50)
        self._check("seed", self.seed, 0, 2**63 - 1)
        for name in ("tuning_folder", "kv_cache_dir"):
            self._check_text(name, getattr(self, name), "must be a folder's path")
        self._check_text("isa", self.isa, "must be the name of an instruction-set level")
        self._check_text("kv_dtype", self.kv_dtype, "must be the name of a number format")
        if self.scheduler not in SCHEDULERS:
            raise ConfigError(
                f"must be one of {', '.join(SCHEDULERS)}", field="scheduler", value=self.scheduler
            )
        if not isinstance(self.tenant_weights, Mapping):
            raise ConfigError(
                "must map tenants to numbers", field="tenant_weights", value=self.tenant_weights
            )
        for tenant, weight in self.tenant_weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 1e-6 <= weight <= 1e6:
                raise ConfigError(
                    "must be a number from 1e-6 to 1e6", field=f"tenant_weights[{tenant!r}]", value=weight
                )

    def _check_cache(self) -> None:
        if not isinstance(self.prefix_cache, bool):
            raise ConfigError("must be true or false", field="prefix_cache", value=self.prefix_cache)
        if self.prefix_eviction not in PREFIX_EVICTIONS:
            raise ConfigError(
                f"must be one of {', '.join(PREFIX_EVICTIONS)}",
                field="prefix_eviction",
                value=self.prefix_eviction,
            )
        if self.kv_cache_dir is not None and not self.prefix_cache:
            raise ConfigError("needs the prefix cache", field="kv_cache_dir", value=self.kv_cache_dir)
        self._check("kv_disk", self.kv_disk, 1, 2**60)

    def _check_text(self, name: str, value: object, wanted: str) -> None:
        if value is not None and not isinstance(value, str):
            raise ConfigError(wanted, field=name, value=value)

    def _check(self, name: str, value: int | None, low: int, high: int) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"must be a whole number from {low} to {high}", field=name, value=value)

    @property
    def num_threads(self) -> int:
        return self.threads or default_threads()

    def kv_budget(self, wanted: int) -> int:
        """Bytes that may hold keys and values when `wanted` would serve every sequence in full."""
        if self.kv_memory is not None:
            return self.kv_memory
        return min(wanted, int(psutil.virtual_memory().available * KV_SHARE_OF_FREE_MEMORY))
