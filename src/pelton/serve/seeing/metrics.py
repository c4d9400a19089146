"""Prometheus figures under `pelton:`, each again under vLLM's name for dashboards that exist already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ...config import SamplingParams
from ...stats import ROW_BUCKETS
from .recent import Recent
from .view import DiskLoad, EngineLoad

OWN, ALIAS = "pelton:", "vllm:"
FINISH_REASONS = ("stop", "length", "error", "abort")
CLOSE_REASONS = ("full", "slow_header", "slow_body", "stalled")
_FIRST = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
_WHOLE = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
_COUNTS = (1, 2, 5, 10, 20, 50, 100)


NO_DISK = DiskLoad(0, 0, 0, 0, 0, 0, 0, 0, 0)
"""What is shown where no folder is set, so that dashboards find every name."""


class _Aliased(Collector):
    """What another collector gives, under both prefixes."""

    def __init__(self, inner: Collector) -> None:
        self._inner = inner

    def collect(self) -> Iterator[Metric]:
        for family in self._inner.collect():
            yield family
            if family.name.startswith(OWN):
                twin = copy(family)
                twin.name = ALIAS + family.name.removeprefix(OWN)
                twin.samples = [s._replace(name=ALIAS + s.name.removeprefix(OWN)) for s in family.samples]
                yield twin


class _Load(Collector):
    """Figures of the engine, read when asked for."""

    def __init__(self, model: str, load: Callable[[], EngineLoad], restarts: Callable[[], int]) -> None:
        self._model = model
        self._load = load
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        load = self._load()
        for name, help_text, value in (
            ("num_requests_running", "Sequences in the running batch.", load.running),
            ("num_requests_waiting", "Sequences waiting to run.", load.waiting),
            ("kv_cache_usage_perc", "Share of KV blocks in use, 1 is all.", load.kv_usage),
        ):
            gauge = GaugeMetricFamily(OWN + name, help_text, labels=["model_name"])
            gauge.add_metric([self._model], value)
            yield gauge
        for name, help_text, value in (
            ("engine_restarts", "Times another engine took the place of a dead one.", self._restarts()),
            ("num_preemptions", "Times a sequence gave its KV blocks back.", load.preemptions),
            ("spec_decode_num_drafts", "Drafts verified.", load.drafts),
            ("spec_decode_num_draft_tokens", "Tokens drafted.", load.drafted),
            ("spec_decode_num_accepted_tokens", "Drafted tokens accepted.", load.accepted),
        ):
            counter = CounterMetricFamily(OWN + name, help_text, labels=["model_name"])
            counter.add_metric([self._model], value)
            yield counter
        yield from self._disk(load.disk or NO_DISK)
        yield self._accepted_at(load)
        yield self._rows(load)

    def _disk(self, disk: DiskLoad) -> Iterator[Metric]:
        for name, help_text, value in (
            ("prefix_disk_blocks", "KV blocks on disk.", disk.blocks),
            ("prefix_disk_bytes", "Bytes of files that keep KV blocks.", disk.bytes_used),
            ("prefix_disk_budget_bytes", "Bytes that those files may have.", disk.budget_bytes),
        ):
            gauge = GaugeMetricFamily(OWN + name, help_text, labels=["model_name"])
            gauge.add_metric([self._model], value)
            yield gauge
        for name, help_text, value in (
            ("prefix_disk_loaded", "KV blocks read from disk and used.", disk.loaded),
            ("prefix_disk_written", "KV blocks written to disk.", disk.written),
            (
                "prefix_disk_failed",
                "KV blocks whose writing failed.",
                disk.failed,
            ),
            ("prefix_disk_dropped", "KV blocks not written for want of room or time.", disk.dropped),
            (
                "prefix_disk_broken",
                "Damaged files, which were removed.",
                disk.broken,
            ),
            ("prefix_disk_strange", "Files found that are another model's, or none of ours.", disk.strange),
        ):
            counter = CounterMetricFamily(OWN + name, help_text, labels=["model_name"])
            counter.add_metric([self._model], value)
            yield counter

    def _accepted_at(self, load: EngineLoad) -> Metric:
        name, help_text = "spec_decode_num_accepted_tokens_per_pos", "Drafts accepted up to a position."
        family = CounterMetricFamily(OWN + name, help_text, labels=["model_name", "position"])
        for position, count in enumerate(load.accepted_at):
            family.add_metric([self._model, str(position)], count)
        return family

    def _rows(self, load: EngineLoad) -> Metric:
        family = HistogramMetricFamily(
            f"{OWN}iteration_tokens_total", "Rows (tokens) of a step.", labels=["model_name"]
        )
        counts = accumulate(load.rows_of_steps or [0] * (len(ROW_BUCKETS) + 1))
        ends = [*(str(float(end)) for end in ROW_BUCKETS), "+Inf"]
        family.add_metric([self._model], list(zip(ends, counts, strict=True)), load.rows)
        return family


class Metrics:
    """The counters of one server; every figure carries the model's name."""

    def __init__(self, model: str, load: Callable[[], EngineLoad], restarts: Callable[[], int]) -> None:
        own = CollectorRegistry()
        own.register(_Load(model, load, restarts))
        self._own = own
        self._model = model
        self._registry = CollectorRegistry()
        self._registry.register(_Aliased(own))
        self.recent = Recent()
        self.refused = self._counter("request_refused", "Requests that found the queue full.")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of admitted requests.")
        self._generation_tokens = self._counter("generation_tokens", "Generated tokens.")
        self._cached = self._counter("prompt_tokens_cached", "Prompt tokens that a cache had.")
        self._queries = self._counter("prefix_cache_queries", "Prompt tokens looked up in the cache.")
        self._hits = self._counter("prefix_cache_hits", "Prompt tokens found in the cache.")
        self._ends = self._labelled("request_success", "Ended requests.", "finished_reason", FINISH_REASONS)
        self._closed = self._labelled(
            "connections_closed", "Connections that the server ended.", "reason", CLOSE_REASONS
        )
        self.not_finite = self._counter("not_finite_logits", "Texts that ended because logits were NaN.")
        self.connections = Gauge(
            f"{OWN}connections_open", "Open connections.", ["model_name"], registry=own
        ).labels(model)
        self._add_times()
        self.prompt_length = self._histogram("request_prompt_tokens", "Prompt tokens a request.", _TOKENS)
        self.output_length = self._histogram("request_generation_tokens", "Tokens generated.", _TOKENS)
        self._asked_n = self._histogram("request_params_n", "n of a request.", _COUNTS)
        self._asked_tokens = self._histogram("request_params_max_tokens", "max_tokens.", _TOKENS)

    def _add_times(self) -> None:
        self.first = self._histogram("time_to_first_token_seconds", "Arrival to first token.", _FIRST)
        self.between = self._histogram("inter_token_latency_seconds", "Between tokens.", _BETWEEN)
        self.per_token = self._histogram(
            "request_time_per_output_token_seconds",
            "A request's mean time a token after its first.",
            _BETWEEN,
        )
        self.whole = self._histogram("e2e_request_latency_seconds", "Arrival to end.", _WHOLE)
        self.queued = self._histogram("request_queue_time_seconds", "Arrival to first step.", _FIRST)
        self.prefill = self._histogram("request_prefill_time_seconds", "First step to first token.", _FIRST)
        self.decode = self._histogram("request_decode_time_seconds", "First token to last.", _WHOLE)
        self.inference = self._histogram("request_inference_time_seconds", "First step to end.", _WHOLE)

    def text(self) -> bytes:
        """The Prometheus text exposition format."""
        return generate_latest(self._registry)

    def begin(self, prompt_tokens: int, params: SamplingParams) -> None:
        """A prompt goes to the engine."""
        self._prompt_tokens.inc(prompt_tokens)
        self.prompt_length.observe(prompt_tokens)
        self._asked_n.observe(params.n)
        if params.max_tokens is not None:
            self._asked_tokens.observe(params.max_tokens)

    def began(self, now: float, wait: float, prompt_tokens: int, cached: int) -> None:
        """The first token came `wait` seconds after the request; a cache had `cached` prompt tokens."""
        self.first.observe(wait)
        self.recent.first_token(now, wait)
        self._queries.inc(prompt_tokens)
        self._hits.inc(cached)
        self._cached.inc(cached)

    def generated(self, now: float, tokens: int) -> None:
        self._generation_tokens.inc(tokens)
        self.recent.generated(now, tokens)

    def ended(self, reason: str) -> None:
        self._ends.labels(self._model, reason).inc()

    def closed(self, reason: str) -> None:
        self._closed.labels(self._model, reason).inc()

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(OWN + name, help_text, ["model_name"], registry=self._own).labels(self._model)

    def _labelled(self, name: str, help_text: str, label: str, values: tuple[str, ...]) -> Counter:
        """A counter that has each of its values from the start, so that a first event is an increase."""
        family = Counter(OWN + name, help_text, ["model_name", label], registry=self._own)
        for value in values:
            family.labels(self._model, value)
        return family

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(OWN + name, help_text, ["model_name"], registry=self._own, buckets=buckets)
        return family.labels(self._model)
