import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from gateway.telemetry.otlp import encode
from gateway.telemetry.setup import start_export
from gateway.telemetry.tracecontext import EMPTY
from tests.gateway.telemetry.collector import grpc_collector
from tests.gateway.telemetry.trees import expected_tree, record, run_chat, without_first_chunk_time

REMOTE = SpanContext(0x1234, 0x5678, True, TraceFlags(1), TraceState([("vendor", "1"), ("other", "2")]))


def test_spans_become_the_same_message_as_with_the_library_s_encoder() -> None:
    recorded = record(DEFAULT_ON)
    run_chat(recorded.provider)
    tracer = recorded.provider.get_tracer("other", "2.0", "https://example.com/schema", {"scope": "attribute"})
    below = trace.set_span_in_context(NonRecordingSpan(REMOTE), EMPTY)
    for kind in SpanKind:
        span = tracer.start_span(f"kind {kind}", below, kind, links=[Link(REMOTE, {"linked": True}), Link(REMOTE)])
        span.set_attributes(
            {
                "text": "ä",
                "empty": "",
                "int": -5,
                "float": 0.25,
                "yes": True,
                "no": False,
                "list": ("a", "b"),
                "numbers": (1, 2),
                "none": (),
            }
        )
        span.set_attribute("bytes", b"\x00\xff")
        span.set_attribute("map", {"key": 1, "nested": {"deep": "x"}})
        span.add_event("event", {"count": 1}, timestamp=5)
        span.set_status(StatusCode.ERROR, "why")
        span.end()
    fine = tracer.start_span("fine", EMPTY)
    fine.set_status(StatusCode.OK)
    fine.end()

    assert encode(recorded.spans) == encode_spans(recorded.spans)


async def test_a_chat_s_tree_arrives_at_a_collector_over_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    async with grpc_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        export = start_export(version="1.2.3")

        run_chat(export.tracer_provider)

        assert await export.stop(timeout_seconds=5)
        assert [without_first_chunk_time(tree) for tree in collector.trees()] == [expected_tree()]
        resource = collector.resource()
        assert (resource["service.name"], resource["service.version"]) == ("shop", "1.2.3")
