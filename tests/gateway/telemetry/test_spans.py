import json
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_OFF, DEFAULT_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway.telemetry.sampling import HeadSamplingTracerProvider
from gateway.telemetry.tracecontext import EMPTY

REMOTE = SpanContext(0x1234, 0x5678, True, TraceFlags(TraceFlags.SAMPLED), TraceState([("vendor", "1")]))
REMOTE_CONTEXT = trace.set_span_in_context(NonRecordingSpan(REMOTE), EMPTY)


def _plain(tracer: trace.Tracer) -> None:
    tracer.start_span("plain", EMPTY).end()


def _full(tracer: trace.Tracer) -> None:
    span = tracer.start_span("first", REMOTE_CONTEXT, SpanKind.SERVER, {"a": 1}, [Link(REMOTE, {"b": 2})], start_time=1_000)
    span.set_attribute("c", "x")
    span.set_attributes({"d": 0.5, "e": True, "f": ("y", "z")})
    span.add_event("happened", {"g": 3}, 2_000)
    span.update_name("second")
    span.set_status(StatusCode.ERROR, "why")
    span.end(3_000)


def _nested(tracer: trace.Tracer) -> None:
    parent = tracer.start_span("parent", REMOTE_CONTEXT)
    tracer.start_span("child", trace.set_span_in_context(parent, EMPTY), SpanKind.CLIENT).end()
    parent.end()


def _ok_is_final(tracer: trace.Tracer) -> None:
    span = tracer.start_span("ok", EMPTY)
    span.set_status(Status(StatusCode.OK))
    span.set_status(StatusCode.ERROR, "ignored")
    span.end()


def _exception(tracer: trace.Tracer) -> None:
    span = tracer.start_span("exception", EMPTY)
    span.record_exception(ValueError("wrong"), timestamp=5)
    span.end()


def _ended(tracer: trace.Tracer) -> None:
    span = tracer.start_span("ended", EMPTY)
    span.end()
    assert not span.is_recording()
    span.set_attribute("late", 1)
    span.set_attributes({"late": 1})
    span.add_event("late")
    span.update_name("late")
    span.set_status(StatusCode.ERROR)
    span.end()


def _as_context_manager(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("current") as span:
        span.set_attribute("a", 1)


def _exported(provider: TracerProvider, use: Callable[[trace.Tracer], None]) -> list[dict[str, Any]]:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use(provider.get_tracer("test", "1.0"))
    spans = []
    for span in exporter.get_finished_spans():
        shown = json.loads(span.to_json())
        shown["scope"] = (
            (span.instrumentation_scope.name, span.instrumentation_scope.version) if span.instrumentation_scope else None
        )
        shown["remote"] = span.parent is not None and span.parent.is_remote
        shown["flags"] = span.context.trace_flags if span.context is not None else None
        del shown["context"]["span_id"]
        if shown["parent_id"] is None:
            del shown["context"]["trace_id"]
        elif not shown["remote"]:
            shown["parent_id"] = "local"
        for name in ("start_time", "end_time"):
            if not str(shown[name]).startswith("1970"):
                del shown[name]
        for event in shown["events"]:
            event["attributes"].pop("exception.stacktrace", None)
        spans.append(shown)
    return spans


@pytest.mark.parametrize("use", [_plain, _full, _nested, _ok_is_final, _exception, _ended, _as_context_manager])
def test_what_is_exported_is_what_the_sdk_s_own_span_would_export(use: Callable[[trace.Tracer], None]) -> None:
    light = _exported(HeadSamplingTracerProvider(DEFAULT_ON, shutdown_on_exit=False), use)
    sdk = _exported(TracerProvider(DEFAULT_ON, shutdown_on_exit=False), use)

    assert light == sdk
    assert light


def test_a_span_that_is_not_sampled_keeps_the_trace_of_its_parent() -> None:
    parent = NonRecordingSpan(SpanContext(0x1234, 0x5678, True, TraceFlags(0), TraceState([("vendor", "1")])))
    tracer = HeadSamplingTracerProvider(DEFAULT_OFF, shutdown_on_exit=False).get_tracer("test")

    span = tracer.start_span("child", trace.set_span_in_context(parent, EMPTY))

    context = span.get_span_context()
    assert not span.is_recording()
    assert (context.trace_id, context.trace_flags, dict(context.trace_state)) == (0x1234, 0, {"vendor": "1"})
    assert context.span_id != 0x5678
