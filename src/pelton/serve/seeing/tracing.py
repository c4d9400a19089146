"""OpenTelemetry: a span for each request, after it has ended, with vLLM's names and the GenAI conventions'.

https://www.w3.org/TR/trace-context/ (traceparent), OpenTelemetry's semantic conventions for GenAI. Only
imported where an endpoint is given: a server without traces pays nothing for them.
"""

from __future__ import annotations

import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from ... import __version__
from .record import RequestRecord

_EXPORT_SECONDS = 5
_CLOSE_SECONDS = 2.0
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}


class Tracing:
    """Called with each request's record when it has ended."""

    def __init__(self, provider: TracerProvider, model: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("pelton", __version__)
        self._model = model

    def __call__(self, record: RequestRecord) -> None:
        given = {"traceparent": record.traceparent, "tracestate": record.tracestate}
        parent = TraceContextTextMapPropagator().extract(given)
        began = int(record.began_at * 1e9)
        span = self._tracer.start_span(
            "llm_request",
            parent,
            SpanKind.SERVER,
            self._http(record) | self._usage(record) | self._asked(record) | self._times(record),
            start_time=began,
        )
        if record.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(began + int(record.seconds * 1e9))

    def close(self) -> None:
        """Send what is left, for 2 s at most: a dead endpoint must not keep the server from ending."""
        thread = threading.Thread(target=self._provider.shutdown, name="pelton-traces", daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)

    def _http(self, record: RequestRecord) -> dict[str, AttributeValue]:
        return {
            "http.request.method": record.method,
            "http.route": record.route,
            "http.response.status_code": record.status,
            "gen_ai.request.id": record.id,
            "gen_ai.provider.name": "pelton",
            "gen_ai.operation.name": _OPERATIONS.get(record.route, record.route),
        }

    def _usage(self, record: RequestRecord) -> dict[str, AttributeValue]:
        return {
            "gen_ai.request.model": self._model,
            "gen_ai.response.model": self._model,
            "gen_ai.usage.prompt_tokens": record.prompt_tokens,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
            "gen_ai.usage.completion_tokens": record.completion_tokens,
            "gen_ai.usage.output_tokens": record.completion_tokens,
            "gen_ai.usage.num_sequences": record.sequences,
            "gen_ai.response.finish_reasons": record.finish_reasons,
        }

    def _asked(self, record: RequestRecord) -> dict[str, AttributeValue]:
        params = record.params
        if params is None:
            return {}
        asked = {
            "gen_ai.request.n": params.n,
            "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p,
            "gen_ai.request.max_tokens": params.max_tokens,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _times(self, record: RequestRecord) -> dict[str, AttributeValue]:
        """Seconds; only of the moments that the request got to."""
        end = record.began + record.seconds
        times: dict[str, AttributeValue] = {"gen_ai.latency.e2e": record.seconds}
        if record.started is not None:
            times["gen_ai.latency.time_in_queue"] = record.started - record.began
            times["gen_ai.latency.time_in_model_inference"] = end - record.started
        if record.first_token is not None:
            times["gen_ai.latency.time_to_first_token"] = record.first_token - record.began
            times["gen_ai.latency.time_in_model_decode"] = end - record.first_token
            if record.started is not None:
                times["gen_ai.latency.time_in_model_prefill"] = record.first_token - record.started
        return times


def send_traces(endpoint: str, model: str) -> Tracing:
    """Spans go to an OTLP endpoint over HTTP (such as http://127.0.0.1:4318/v1/traces), in batches."""
    provider = TracerProvider(resource=Resource.create({"service.name": "pelton"}))
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, model)
