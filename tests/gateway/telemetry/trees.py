"""Spans as trees that a test can compare whole, and the road of one chat through both surfaces, as the gateway takes it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp.test_utils import make_mocked_request
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import format_span_id, format_trace_id
from prometheus_client import CollectorRegistry
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.telemetry.http import HttpTelemetry
from bridge.telemetry.metrics import HttpMetrics
from gateway.errors import GatewayError
from gateway.telemetry.sampling import HeadSamplingTracerProvider
from gateway.telemetry.tracing import Tracing

METHOD = "/twinspan.v1.ChatService/Stream"
URL = "https://user:pass@api.example.com/v1/chat/completions?key=secret"
PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_SPAN = "00f067aa0ba902b7"


@dataclass
class Node:
    """A span and those below it."""

    name: str
    kind: str
    attributes: dict[str, Any]
    status: str = "UNSET"
    description: str | None = None
    events: list[str] = field(default_factory=list)
    children: list["Node"] = field(default_factory=list)


@dataclass
class Recorded:
    """A tracer provider, and the spans that it has recorded."""

    provider: HeadSamplingTracerProvider
    exporter: InMemorySpanExporter

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def trees(self) -> list[Node]:
        return trees(self.spans)


def record(sampler: Sampler) -> Recorded:
    """Returns a provider that keeps every span it samples."""
    exporter = InMemorySpanExporter()
    provider = HeadSamplingTracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Recorded(provider, exporter)


def trees(spans: Sequence[ReadableSpan]) -> list[Node]:
    """Returns the roots of what these spans make, children in the order in which they began."""
    nodes: dict[int, Node] = {}
    roots: list[Node] = []
    for span in sorted(spans, key=lambda span: span.start_time or 0):
        assert span.context is not None
        assert span.attributes is not None
        status = span.status
        nodes[span.context.span_id] = node = Node(
            span.name,
            span.kind.name,
            dict(span.attributes),
            status.status_code.name,
            status.description,
            [event.name for event in span.events],
        )
        above = nodes.get(span.parent.span_id) if span.parent is not None else None
        (roots if above is None else above.children).append(node)
    return roots


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Returns a span's trace id, its own id and its parent's, in hexadecimal digits."""
    assert span.context is not None
    parent = None if span.parent is None else format_span_id(span.parent.span_id)
    return format_trace_id(span.context.trace_id), format_span_id(span.context.span_id), parent


def run_chat(provider: trace.TracerProvider, headers: dict[str, str] | None = None) -> list[dict[str, str]]:
    """Takes one streamed chat over HTTP through both surfaces: a first attempt is refused with 429, a second answers.

    Returns:
        The trace headers that each attempt sent upstream.
    """
    http = HttpTelemetry(provider, HttpMetrics(CollectorRegistry()))
    tracing = Tracing(provider)
    chat = chat_pb2.ChatRequest(
        model="smart",
        temperature=0.5,
        max_completion_tokens=100,
        n=2,
        stop=["END"],
        response_format=content_pb2.ResponseFormat(type="json_object"),
        messages=[content_pb2.Message(text="a secret thought")],
    )
    request = make_mocked_request("POST", "/v1/chat/completions?api_key=secret", headers={"User-Agent": "test", **(headers or {})})
    http_span = http.begin("POST", "/v1/chat/completions", request)
    metadata = [("x-request-id", "r1")]
    http_span.begin_client(METHOD, metadata)

    server = tracing.server_span(METHOD, metadata)
    span = tracing.chat_span(server, chat, stream=True)
    first = tracing.attempt_span(span, provider="xai", model="grok", number=1, url=URL)
    refusal = GatewayError(ErrorKind.ERROR_KIND_RATE_LIMITED, "Slow down.")
    sent = [dict(first.headers)]
    first.end(refusal, status=429)
    second = tracing.attempt_span(
        span,
        provider="local",
        model="smollm2",
        number=2,
        url="http://127.0.0.1:9000/v1/chat/completions",
        retry_reason="rate_limited",
    )
    sent.append(dict(second.headers))
    span.first_token()
    span.first_token()
    second.end(status=200)
    span.end(
        provider="local",
        attempts=2,
        info=chat_pb2.ResponseInfo(id="chatcmpl-1", model="smollm2-135m"),
        usage=content_pb2.Usage(input_tokens=7, output_tokens=9, cached_input_tokens=3, reasoning_tokens=2),
        finish_reasons=[content_pb2.FINISH_REASON_STOP, content_pb2.FINISH_REASON_LENGTH],
    )
    server.end("OK")
    http_span.end(200)
    return sent


def expected_tree() -> Node:
    """Returns the tree of `run_chat`, but for the time to the first chunk."""
    attempts = [
        Node(
            "attempt xai",
            "CLIENT",
            {
                "twinspan.provider": "xai",
                "twinspan.model": "grok",
                "twinspan.attempt": 1,
                "http.request.method": "POST",
                "url.full": "https://api.example.com/v1/chat/completions",
                "server.address": "api.example.com",
                "server.port": 443,
                "http.response.status_code": 429,
                "error.type": "rate_limited",
            },
            "ERROR",
            "Slow down.",
        ),
        Node(
            "attempt local",
            "CLIENT",
            {
                "twinspan.provider": "local",
                "twinspan.model": "smollm2",
                "twinspan.attempt": 2,
                "twinspan.retry_reason": "rate_limited",
                "http.request.method": "POST",
                "url.full": "http://127.0.0.1:9000/v1/chat/completions",
                "server.address": "127.0.0.1",
                "server.port": 9000,
                "http.response.status_code": 200,
            },
        ),
    ]
    chat = Node(
        "chat smart",
        "CLIENT",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "smart",
            "gen_ai.request.stream": True,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.max_tokens": 100,
            "gen_ai.request.choice.count": 2,
            "gen_ai.request.stop_sequences": ("END",),
            "gen_ai.output.type": "json",
            "gen_ai.provider.name": "local",
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.response.model": "smollm2-135m",
            "gen_ai.response.finish_reasons": ("stop", "length"),
            "gen_ai.usage.input_tokens": 7,
            "gen_ai.usage.output_tokens": 9,
            "gen_ai.usage.cache_read.input_tokens": 3,
            "gen_ai.usage.reasoning.output_tokens": 2,
            "twinspan.attempts": 2,
        },
        events=["first_token"],
        children=attempts,
    )
    rpc = {"rpc.system.name": "grpc", "rpc.method": "twinspan.v1.ChatService/Stream", "rpc.response.status_code": "OK"}
    server = Node("twinspan.v1.ChatService/Stream", "SERVER", dict(rpc), children=[chat])
    client = Node("twinspan.v1.ChatService/Stream", "CLIENT", dict(rpc), children=[server])
    return Node(
        "POST /v1/chat/completions",
        "SERVER",
        {
            "http.request.method": "POST",
            "http.route": "/v1/chat/completions",
            "http.response.status_code": 200,
            "url.path": "/v1/chat/completions",
            "url.scheme": "http",
            "user_agent.original": "test",
        },
        children=[client],
    )


def without_first_chunk_time(tree: Node) -> Node:
    """Takes the one attribute that differs from run to run out of a tree, once it has made sure that it is there."""
    chat = tree.children[0].children[0].children[0]
    assert chat.attributes.pop("gen_ai.response.time_to_first_chunk") >= 0
    return tree
