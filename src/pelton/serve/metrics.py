"""Prometheus figures under `pelton:`, each again under vLLM's name for dashboards that exist already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..outputs import StreamOutput
from .client import EngineLoad

OWN, ALIAS = "pelton:", "vllm:"
_FIRST = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
_WHOLE = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


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
    """Gauges read from the engine when asked for."""

    def __init__(self, model: str, load: Callable[[], EngineLoad]) -> None:
        self._model = model
        self._load = load

    def collect(self) -> Iterable[Metric]:
        load = self._load()
        for name, help_text, value in (
            ("num_requests_running", "Sequences in the running batch.", load.running),
            ("num_requests_waiting", "Sequences waiting to run.", load.waiting),
            ("kv_cache_usage_perc", "Share of KV blocks in use, 1 is all.", load.kv_usage),
        ):
            family = GaugeMetricFamily(OWN + name, help_text, labels=["model_name"])
            family.add_metric([self._model], value)
            yield family


class Metrics:
    """The counters of one server; every figure carries the model's name."""

    def __init__(self, model: str, load: Callable[[], EngineLoad]) -> None:
        own = CollectorRegistry()
        own.register(_Load(model, load))
        self._own = own
        self._model = model
        self._registry = CollectorRegistry()
        self._registry.register(_Aliased(own))
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of admitted requests.")
        self.generation_tokens = self._counter("generation_tokens", "Generated tokens.")
        self._ends = Counter(
            f"{OWN}request_success", "Ended requests.", ["model_name", "finished_reason"], registry=own
        )
        self.refused = self._counter("request_refused", "Requests that found the queue full.")
        self.first = self._histogram("time_to_first_token_seconds", "Arrival to first token.", _FIRST)
        self.between = self._histogram("inter_token_latency_seconds", "Between tokens.", _BETWEEN)
        self.per_token = self._histogram(
            "request_time_per_output_token_seconds",
            "A request's mean time a token after its first.",
            _BETWEEN,
        )
        self.whole = self._histogram("e2e_request_latency_seconds", "Arrival to end.", _WHOLE)
        self.prompt_length = self._histogram("request_prompt_tokens", "Prompt tokens a request.", _TOKENS)
        self.output_length = self._histogram("request_generation_tokens", "Tokens generated.", _TOKENS)

    def text(self) -> bytes:
        """The Prometheus text exposition format."""
        return generate_latest(self._registry)

    def ended(self, reason: str) -> None:
        self._ends.labels(self._model, reason).inc()

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(OWN + name, help_text, ["model_name"], registry=self._own).labels(self._model)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(OWN + name, help_text, ["model_name"], registry=self._own, buckets=buckets)
        return family.labels(self._model)


class RequestMeter:
    """Times one request; `arrival` is when the server had read it, in seconds of `monotonic`."""

    def __init__(self, metrics: Metrics, arrival: float, prompt_tokens: int) -> None:
        self._metrics = metrics
        self._arrival = arrival
        self._first: float | None = None
        self._last: dict[int, float] = {}
        self._tokens = 0
        self._reason = "abort"
        metrics.prompt_tokens.inc(prompt_tokens)
        metrics.prompt_length.observe(prompt_tokens)

    def take(self, piece: StreamOutput) -> None:
        """Count one piece of the answer."""
        if piece.token_ids:
            now = monotonic()
            if self._first is None:
                self._first = now
                self._metrics.first.observe(now - self._arrival)
            last = self._last.get(piece.index)
            if last is not None:
                self._metrics.between.observe(now - last)
            self._last[piece.index] = now
            self._tokens += len(piece.token_ids)
            self._metrics.generation_tokens.inc(len(piece.token_ids))
        if piece.finish_reason is not None:
            self._reason = piece.finish_reason

    def end(self, completed: bool) -> None:
        """The request is over; `completed` is False where it failed or its client left."""
        reason = self._reason if completed or self._reason == "error" else "abort"
        self._metrics.ended(reason)
        if self._first is None or not completed:
            return
        self._metrics.whole.observe(monotonic() - self._arrival)
        self._metrics.output_length.observe(self._tokens)
        decoded = self._tokens - len(self._last)
        if decoded > 0:
            spent = sum(last - self._first for last in self._last.values())
            self._metrics.per_token.observe(spent / decoded)
