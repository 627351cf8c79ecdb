"""Spans as OTLP messages, and the exporter that sends them over gRPC.

The exporter is OpenTelemetry's; only its translation is replaced. The library's takes 42 µs a span, more than all else that a
sampled span costs, since it builds each message from keyword arguments and hashes the resource as JSON for every span. This one
fills messages in place, in a quarter of that time. `gateway.telemetry.setup` imports this module only if spans are exported over
gRPC.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind

_KINDS: Mapping[SpanKind, trace_pb2.Span.SpanKind.ValueType] = {
    SpanKind.INTERNAL: trace_pb2.Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: trace_pb2.Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: trace_pb2.Span.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: trace_pb2.Span.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: trace_pb2.Span.SPAN_KIND_CONSUMER,
}


class SpanExporter(OTLPSpanExporter):
    """Sends spans to a collector over gRPC, as the standard `OTEL_EXPORTER_OTLP_*` variables say."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        return encode(data)


def encode(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """Returns spans as one request, grouped by the tracer that made them."""
    request = ExportTraceServiceRequest()
    resources: dict[int, trace_pb2.ResourceSpans] = {}
    scopes: dict[tuple[int, int], trace_pb2.ScopeSpans] = {}
    for span in spans:
        # By identity: a provider has one resource and a tracer one scope, and neither is worth hashing again for each span.
        key = (id(span.resource), id(span.instrumentation_scope))
        scope = scopes.get(key)
        if scope is None:
            resource = resources.get(key[0])
            if resource is None:
                resource = resources[key[0]] = request.resource_spans.add(schema_url=span.resource.schema_url)
                _fill_attributes(resource.resource.attributes, span.resource.attributes)
            scope = scopes[key] = resource.scope_spans.add()
            _fill_scope(scope, span.instrumentation_scope)
        _fill(scope.spans.add(), span)
    return request


def _fill_scope(message: trace_pb2.ScopeSpans, scope: InstrumentationScope | None) -> None:
    message.scope.SetInParent()
    if scope is not None:
        message.scope.name = scope.name
        message.scope.version = scope.version or ""
        _fill_attributes(message.scope.attributes, scope.attributes)
        message.schema_url = scope.schema_url or ""


def _fill(message: trace_pb2.Span, span: ReadableSpan) -> None:
    context = span.context
    message.trace_id = context.trace_id.to_bytes(16, "big")
    message.span_id = context.span_id.to_bytes(8, "big")
    if context.trace_state:
        message.trace_state = context.trace_state.to_header()
    if span.parent is not None:
        message.parent_span_id = span.parent.span_id.to_bytes(8, "big")
    message.flags = _flags(span.parent)
    message.name = span.name
    message.kind = _KINDS[span.kind]
    message.start_time_unix_nano = span.start_time or 0
    message.end_time_unix_nano = span.end_time or 0
    _fill_attributes(message.attributes, span.attributes)
    message.dropped_attributes_count = span.dropped_attributes
    for event in span.events:
        entry = message.events.add(name=event.name, time_unix_nano=event.timestamp)
        _fill_attributes(entry.attributes, event.attributes)
    message.dropped_events_count = span.dropped_events
    for link in span.links:
        _fill_link(message.links.add(), link)
    message.dropped_links_count = span.dropped_links
    message.status.code = span.status.status_code.value  # type: ignore[assignment]  # the API's enum has OTLP's numbers
    if span.status.description:
        message.status.message = span.status.description


def _fill_link(message: trace_pb2.Span.Link, link: Link) -> None:
    message.trace_id = link.context.trace_id.to_bytes(16, "big")
    message.span_id = link.context.span_id.to_bytes(8, "big")
    message.flags = _flags(link.context)
    _fill_attributes(message.attributes, link.attributes)
    message.dropped_attributes_count = link.dropped_attributes


def _flags(parent: SpanContext | None) -> int:
    flags = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    return flags | trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK if parent is not None and parent.is_remote else flags


def _fill_attributes(entries: Any, attributes: Mapping[str, Any] | None) -> None:
    if not attributes:
        return
    for name, value in attributes.items():
        entry: KeyValue = entries.add()
        entry.key = name
        _fill_value(entry.value, value)


def _fill_value(message: AnyValue, value: Any) -> None:
    if isinstance(value, str):
        message.string_value = value
    elif isinstance(value, bool):  # before int, of which it is a kind
        message.bool_value = value
    elif isinstance(value, int):
        message.int_value = value
    elif isinstance(value, float):
        message.double_value = value
    elif isinstance(value, bytes):
        message.bytes_value = value
    elif isinstance(value, Mapping):
        message.kvlist_value.SetInParent()
        _fill_attributes(message.kvlist_value.values, value)
    elif isinstance(value, Sequence):
        message.array_value.SetInParent()
        for item in value:
            _fill_value(message.array_value.values.add(), item)
