import asyncio
from typing import Any

import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_OFF, DEFAULT_ON, Sampler
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import CollectorRegistry

from bridge.telemetry.http import CLIENT_GONE, HttpTelemetry
from bridge.telemetry.metrics import HttpMetrics
from gateway.telemetry.sampling import HeadSamplingTracerProvider
from tests.gateway.telemetry.trees import METHOD, PARENT, PARENT_SPAN, Node, ids, trees

ROUTE = "/v1/models/{id}"
NAME = f"GET {ROUTE}"
RPC = {"rpc.system.name": "grpc", "rpc.method": METHOD[1:]}


class _Bridge:
    """The bridge's telemetry with either provider, and what it records."""

    def __init__(self, kind: type[TracerProvider], sampler: Sampler = DEFAULT_ON) -> None:
        self.exporter = InMemorySpanExporter()
        provider = kind(sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = HttpTelemetry(provider, HttpMetrics(CollectorRegistry()))

    def trees(self) -> list[Node]:
        return trees(self.exporter.get_finished_spans())


@pytest.fixture(params=[TracerProvider, HeadSamplingTracerProvider], ids=["sdk", "head sampling"])
def kind(request: pytest.FixtureRequest) -> type[TracerProvider]:
    provider: type[TracerProvider] = request.param
    return provider


def _request(*headers: tuple[str, str]) -> web.Request:
    return make_mocked_request("GET", "/v1/models/a?secret=1", headers=CIMultiDict(headers))


def _rpc_error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


def _http(status: int, **more: Any) -> dict[str, Any]:
    attributes = {"http.request.method": "GET", "http.route": ROUTE, "url.path": "/v1/models/a", "url.scheme": "http"}
    return {**attributes, "http.response.status_code": status, **more}


def test_a_request_and_its_rpc_are_two_spans_and_the_rpc_s_metadata_names_the_second(kind: type[TracerProvider]) -> None:
    bridge = _Bridge(kind)
    metadata = [("x-request-id", "r1")]

    span = bridge.telemetry.begin("GET", ROUTE, _request())
    with span.client(METHOD, metadata):
        pass
    span.end(200)

    assert bridge.trees() == [
        Node(NAME, "SERVER", _http(200), children=[Node(METHOD[1:], "CLIENT", {**RPC, "rpc.response.status_code": "OK"})])
    ]
    client = next(span for span in bridge.exporter.get_finished_spans() if span.kind.name == "CLIENT")
    trace_id, span_id, _ = ids(client)
    assert metadata == [("x-request-id", "r1"), ("traceparent", f"00-{trace_id}-{span_id}-03")]
    assert span.log_fields["trace_id"] == trace_id


@pytest.mark.parametrize(
    ("status", "error_kind", "code", "failed"),
    [
        (200, None, "OK", False),
        (404, "model_not_found", "NOT_FOUND", False),
        (429, "rate_limited", "RESOURCE_EXHAUSTED", False),
        (502, "network_error", "UNAVAILABLE", True),
        (500, "internal_error", "INTERNAL", True),
        (200, "provider_timeout", "DEADLINE_EXCEEDED", True),
        (200, "cancelled", "CANCELLED", False),
        (CLIENT_GONE, None, "CANCELLED", False),
        (500, "never_heard_of", "UNKNOWN", True),
    ],
)
def test_a_stream_s_rpc_ends_with_its_request_and_with_the_same_outcome(
    kind: type[TracerProvider], status: int, error_kind: str | None, code: str, failed: bool
) -> None:
    bridge = _Bridge(kind)
    span = bridge.telemetry.begin("GET", ROUTE, _request())
    span.begin_client(METHOD, [])

    span.end(status, error_kind)

    (tree,) = bridge.trees()
    (client,) = tree.children
    wrong = {} if code == "OK" else {"error.type": error_kind or "cancelled"}
    assert (tree.attributes, tree.status) == (_http(status, **wrong), "ERROR" if failed else "UNSET")
    assert client.attributes == {**RPC, "rpc.response.status_code": code, **({"error.type": code} if wrong else {})}
    assert client.status == ("UNSET" if code in {"OK", "CANCELLED"} else "ERROR")


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (_rpc_error(grpc.StatusCode.NOT_FOUND), "NOT_FOUND", "ERROR"),
        (asyncio.CancelledError(), "CANCELLED", "UNSET"),
        (ValueError("a secret"), "UNKNOWN", "ERROR"),
    ],
)
def test_a_unary_rpc_ends_with_what_ended_it(kind: type[TracerProvider], error: BaseException, code: str, status: str) -> None:
    bridge = _Bridge(kind)
    span = bridge.telemetry.begin("GET", ROUTE, _request())

    with pytest.raises(type(error)), span.client(METHOD, []):
        raise error
    span.end(500, "internal_error")

    (client,) = bridge.trees()[0].children
    assert client == Node(METHOD[1:], "CLIENT", {**RPC, "rpc.response.status_code": code, "error.type": code}, status)


def test_ending_twice_counts_and_records_once(kind: type[TracerProvider]) -> None:
    bridge = _Bridge(kind)
    span = bridge.telemetry.begin("GET", ROUTE, _request())

    span.end(200)
    span.end(500, "internal_error")

    assert bridge.trees() == [Node(NAME, "SERVER", _http(200))]
    assert (
        b'twinspan_http_requests_total{method="GET",route="/v1/models/{id}",status="200"} 1.0'
        in bridge.telemetry.metrics.render("")[0]
    )


def test_a_sampled_client_is_continued_with_its_tracestate(kind: type[TracerProvider]) -> None:
    bridge = _Bridge(kind, DEFAULT_OFF)
    metadata: list[tuple[str, str]] = []
    request = _request(("traceparent", f"00-{PARENT}-{PARENT_SPAN}-01"), ("tracestate", "a=1"), ("tracestate", "b=2"))

    span = bridge.telemetry.begin("GET", ROUTE, request)
    span.begin_client(METHOD, metadata)
    span.end(200)

    assert [ids(span)[0] for span in bridge.exporter.get_finished_spans()] == [PARENT, PARENT]
    assert bridge.exporter.get_finished_spans()[1].parent is not None
    assert metadata[0][1].startswith(f"00-{PARENT}-")
    assert metadata[1] == ("tracestate", "a=1,b=2")


@pytest.mark.parametrize("tracestate", [[], [("tracestate", "a=1")]], ids=["plain", "tracestate"])
def test_an_unsampled_client_s_headers_are_passed_on_as_they_are(tracestate: list[tuple[str, str]]) -> None:
    bridge = _Bridge(HeadSamplingTracerProvider)
    headers = [("traceparent", f"00-{PARENT}-{PARENT_SPAN}-00"), *tracestate]
    metadata: list[tuple[str, str]] = []

    span = bridge.telemetry.begin("GET", ROUTE, _request(*headers))
    with span.client(METHOD, metadata):
        pass
    span.end(200)

    assert bridge.trees() == []
    assert metadata == headers


def test_an_unsampled_client_may_still_be_recorded_by_a_sampler_that_does_not_ask_it(kind: type[TracerProvider]) -> None:
    bridge = _Bridge(kind, ALWAYS_ON)

    bridge.telemetry.begin("GET", ROUTE, _request(("traceparent", f"00-{PARENT}-{PARENT_SPAN}-00"))).end(200)

    assert [ids(span)[0] for span in bridge.exporter.get_finished_spans()] == [PARENT]


def test_without_sampling_each_request_gets_a_trace_of_its_own_and_no_span(kind: type[TracerProvider]) -> None:
    bridge = _Bridge(kind, DEFAULT_OFF)
    metadata: list[tuple[str, str]] = []

    for _ in range(2):
        span = bridge.telemetry.begin("GET", ROUTE, _request())
        span.begin_client(METHOD, metadata)
        span.end(200)

    assert bridge.trees() == []
    assert len({value for _, value in metadata}) == 2
    assert all(value.endswith("-02") for _, value in metadata)


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "garbage"), ("tracestate", "a=1")],
        [("traceparent", f"00-{PARENT}-{PARENT_SPAN}-01")] * 2,
        [("tracestate", "a=1")],
        [],
    ],
    ids=["malformed", "two", "tracestate alone", "none"],
)
def test_whatever_is_no_trace_context_is_ignored(kind: type[TracerProvider], headers: list[tuple[str, str]]) -> None:
    bridge = _Bridge(kind)

    bridge.telemetry.begin("GET", ROUTE, _request(*headers)).end(200)

    assert [ids(span)[2] for span in bridge.exporter.get_finished_spans()] == [None]
    off: list[tuple[str, str]] = []
    HttpTelemetry(NoOpTracerProvider(), HttpMetrics(CollectorRegistry())).begin("GET", ROUTE, _request(*headers)).begin_client(
        METHOD, off
    )
    assert off == []


@pytest.mark.parametrize("flags", ["00", "01"])
def test_with_tracing_off_the_client_s_context_still_reaches_the_core(flags: str) -> None:
    telemetry = HttpTelemetry(NoOpTracerProvider(), HttpMetrics(CollectorRegistry()))
    headers = [("traceparent", f"00-{PARENT}-{PARENT_SPAN}-{flags}"), ("tracestate", "a=1")]
    metadata: list[tuple[str, str]] = []

    span = telemetry.begin("GET", ROUTE, _request(*headers))
    with span.client(METHOD, metadata):
        pass
    span.end(200)

    assert metadata == headers
    assert span.log_fields == {"trace_id": PARENT, "span_id": PARENT_SPAN}


def test_a_made_up_method_has_one_name(kind: type[TracerProvider]) -> None:
    bridge = _Bridge(kind)

    bridge.telemetry.begin("BREW", "(none)", _request()).end(404, "not_found")

    (tree,) = bridge.trees()
    assert (tree.name, tree.attributes["http.request.method"]) == ("_OTHER (none)", "_OTHER")
