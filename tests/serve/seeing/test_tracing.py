"""Spans of requests, with the SDK's exporter that keeps them in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from pelton.serve.seeing.tracing import Tracing, send_traces

from ..serving import NAME, Served, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def served(tiny_path: Path, spans: InMemorySpanExporter) -> Iterator[Served]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracing = Tracing(provider, NAME)
    with serving(tiny_path) as served:
        served.service.on_end.append(tracing)
        yield served
    tracing.close()


def one(served: Served, spans: InMemorySpanExporter) -> ReadableSpan:
    assert served.until(lambda: bool(spans.get_finished_spans()))
    (span,) = spans.get_finished_spans()
    spans.clear()
    return span


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_a_span_of_its_callers_trace(
    served: Served, spans: InMemorySpanExporter, stream: bool
) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6, "ignore_eos": True}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b", "X-Request-Id": "mine"}
    reply = served.http.post(
        "/v1/chat/completions", json={**body, "stream": stream, "n": 2, "top_p": 0.5}, headers=headers
    )
    assert reply.status_code == 200
    span = one(served, spans)
    context, parent, said = span.get_span_context(), span.parent, dict(span.attributes or {})
    assert context is not None
    assert parent is not None
    assert (format(context.trace_id, "032x"), format(parent.span_id, "016x")) == (TRACE, PARENT)
    assert context.trace_state.get("a") == "b"
    assert (span.name, span.kind) == ("llm_request", SpanKind.SERVER)
    assert said["gen_ai.request.id"] == "mine"
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.response.model"] == NAME
    asked = [said[f"gen_ai.request.{name}"] for name in ("n", "top_p", "max_tokens")]
    assert asked == [2, 0.5, 6]
    assert said["gen_ai.usage.completion_tokens"] == said["gen_ai.usage.output_tokens"] == 12
    assert said["gen_ai.usage.prompt_tokens"] == said["gen_ai.usage.input_tokens"]
    assert said["gen_ai.response.finish_reasons"] == ("length", "length")
    assert said["http.response.status_code"] == 200
    times = {name: said[f"gen_ai.latency.{name}"] for name in ("time_in_queue", "e2e", "time_to_first_token")}
    assert 0 <= times["time_in_queue"] <= times["time_to_first_token"] <= times["e2e"]  # type: ignore[operator]
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(times["e2e"], abs=1e-6)
    assert "hello" not in str(said)


def test_a_refused_request_is_a_span_too_and_a_bad_parent_none(
    served: Served, spans: InMemorySpanExporter
) -> None:
    for parent in ("nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 10_000):
        reply = served.http.post("/v1/completions", json={"prompt": 5}, headers={"traceparent": parent})
        assert reply.status_code == 400
        span = one(served, spans)
        assert span.parent is None
        assert dict(span.attributes or {})["http.response.status_code"] == 400
        assert span.status.status_code is StatusCode.UNSET


def test_an_endpoint_that_is_not_there_does_not_hold_up_the_end() -> None:
    tracing = send_traces("http://127.0.0.1:9/v1/traces", NAME)
    tracing.close()


def test_a_server_without_traces_does_not_even_import_them() -> None:
    ours = "{'opentelemetry.sdk', 'pelton.serve.seeing.tracing'}"
    code = f"import sys, pelton.serve.server; print({ours} & {{*sys.modules}})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"
