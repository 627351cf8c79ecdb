"""A collector of one's own: it takes OTLP over gRPC and over HTTP, and keeps what it gets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceServicer, add_TraceServiceServicer_to_server
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.gateway.telemetry.trees import Node


class Collector(TraceServiceServicer, MetricsServiceServicer):
    """What was exported to it."""

    def __init__(self) -> None:
        self.port = 0
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.got_metrics = asyncio.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def resource(self) -> dict[str, Any]:
        """Returns the attributes of whoever exported traces."""
        return _attributes(self.traces[0].resource_spans[0].resource.attributes)

    def trees(self) -> list[Node]:
        """Returns the spans that arrived as trees."""
        spans = [
            span
            for request in self.traces
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        nodes: dict[bytes, Node] = {}
        roots: list[Node] = []
        for span in sorted(spans, key=lambda span: span.start_time_unix_nano):
            node = nodes[span.span_id] = _node(span)
            above = nodes.get(span.parent_span_id)
            (roots if above is None else above.children).append(node)
        return roots

    def series(self) -> dict[str, list[tuple[dict[str, Any], int, float]]]:
        """Returns the attributes, count and sum of each series of the latest metrics, by metric."""
        metrics: list[Metric] = [
            metric for group in self.metrics[-1].resource_metrics for scope in group.scope_metrics for metric in scope.metrics
        ]
        return {
            metric.name: [(_attributes(point.attributes), point.count, point.sum) for point in metric.histogram.data_points]
            for metric in metrics
        }

    async def Export(self, request: Any, _context: Any) -> Any:  # noqa: N802 (the RPC's name; both services have it)
        if isinstance(request, ExportTraceServiceRequest):
            self.traces.append(request)
            return ExportTraceServiceResponse()
        self.metrics.append(request)
        self.got_metrics.set()
        return ExportMetricsServiceResponse()

    async def take_traces(self, request: web.Request) -> web.Response:
        self.traces.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()


@asynccontextmanager
async def grpc_collector() -> AsyncIterator[Collector]:
    """Runs a collector that takes OTLP over gRPC."""
    collector = Collector()
    server = grpc.aio.server()
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]  # generated without types
    add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]  # generated without types
    collector.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


@asynccontextmanager
async def http_collector() -> AsyncIterator[Collector]:
    """Runs a collector that takes traces as OTLP over HTTP."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take_traces)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.port = runner.addresses[0][1]
    try:
        yield collector
    finally:
        await runner.cleanup()


def _node(span: Span) -> Node:
    return Node(
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        _attributes(span.attributes),
        {0: "UNSET", 1: "OK", 2: "ERROR"}[span.status.code],
        span.status.message or None,
        [event.name for event in span.events],
    )


def _attributes(entries: Any) -> dict[str, Any]:
    pairs: list[KeyValue] = list(entries)
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    return getattr(value, kind) if kind else None
