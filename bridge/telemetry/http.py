"""A span for each HTTP request and for each RPC it becomes, and the request's count.

A span is a value that its owner ends; nothing is kept in context variables. Where nothing is recorded, the trace context is
carried on as it came, no SDK is called and no attribute is built. Below are OpenTelemetry's API and a tracer provider that
somebody else has made; names and attributes follow the semantic conventions for HTTP and RPC. The core's spans are its own: it
finds its parent in the metadata that `HttpSpan.begin_client` fills in.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, runtime_checkable

import grpc
from aiohttp import web
from google.rpc import code_pb2
from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from twinspan.v1 import annotations_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.telemetry.metrics import HttpMetrics, method_name
from bridge.telemetry.tracecontext import EMPTY, Headers, context_of, incoming, is_sampled, outgoing

CLIENT_GONE = 499
"""The status of a request whose client went away before the answer began."""

_CANCELLED = "cancelled"
_NOTHING = nullcontext()


@runtime_checkable
class HeadSampling(Protocol):
    """A tracer provider that can decide on a trace before there is a span. `gateway.app` makes such a one; any other does, too.

    Attributes:
        follows_unsampled: Whether a remote parent that is not sampled settles that its children are not.
    """

    follows_unsampled: bool

    def unsampled_root(self) -> str | None:
        """Returns a new `traceparent` that is not sampled, or None if a root span must be started to know."""


class HttpSpan:
    """One HTTP request. It must be ended; only the first end counts."""

    __slots__ = ("_client", "_ended", "_headers", "_method", "_route", "_span", "_telemetry")

    def __init__(self, telemetry: "HttpTelemetry", method: str, route: str, span: trace.Span | None, headers: Headers) -> None:
        self._telemetry = telemetry
        self._method = method
        self._route = route
        self._span = span
        self._headers = headers
        self._client: trace.Span | None = None
        self._ended = False

    @property
    def log_fields(self) -> dict[str, str]:
        """`trace_id` and `span_id`, for the `extra` of a log line; empty if there is no trace."""
        headers = self._headers
        return {"trace_id": headers[0][1][3:35], "span_id": headers[0][1][36:52]} if headers else {}

    def begin_client(self, method: str, metadata: list[tuple[str, str]]) -> None:
        """Starts the span of an RPC that this request becomes, and adds the trace context to the RPC's metadata.

        Args:
            method: The RPC's full name, such as `/twinspan.v1.ChatService/Stream`.
            metadata: Where `traceparent`, and `tracestate` if there is one, are added.
        """
        if self._span is None:
            metadata.extend(self._headers)
            return
        self.end_client("OK")
        self._client = client = self._telemetry.client_span(method.removeprefix("/"), self._span)
        metadata.extend(outgoing(client.get_span_context()))

    def end_client(self, code: str) -> None:
        """Ends the RPC's span, if it is still open.

        Args:
            code: The gRPC status code's name, such as `OK`.
        """
        client = self._client
        if client is None:
            return
        self._client = None
        client.set_attribute("rpc.response.status_code", code)
        if code != "OK":
            client.set_attribute("error.type", code)
        if code not in {"OK", "CANCELLED"}:
            client.set_status(StatusCode.ERROR)
        client.end()

    def client(self, method: str, metadata: list[tuple[str, str]]) -> AbstractContextManager[None]:
        """Does what `begin_client` does, and ends the RPC's span when it is left, with the error's status if it is left by one."""
        self.begin_client(method, metadata)
        return _NOTHING if self._client is None else self._until_answered()

    @contextmanager
    def _until_answered(self) -> Iterator[None]:
        code = "UNKNOWN"
        try:
            yield
            code = "OK"
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            self.end_client(code)

    def end(self, status: int, error_kind: str | None = None) -> None:
        """Ends the span, and that of an RPC which is still open, and counts the request.

        Args:
            status: The answer's status; `CLIENT_GONE` if it never began.
            error_kind: The error's kind, if it failed; also if it failed after its answer had begun.
        """
        if self._ended:
            return
        self._ended = True
        self._telemetry.metrics.count(self._method, self._route, status)
        span = self._span
        if span is None:
            return
        if status == CLIENT_GONE and error_kind is None:
            error_kind = _CANCELLED
        self.end_client(_grpc_code(error_kind))
        span.set_attribute("http.response.status_code", status)
        if error_kind is not None:
            span.set_attribute("error.type", error_kind)
        # A client's fault is no error of a server's span. A fault after the answer had begun is one, unless the client went away.
        if status >= 500 or (status < 400 and error_kind not in {None, _CANCELLED}):
            span.set_status(StatusCode.ERROR)
        span.end()


class HttpTelemetry:
    """Makes a span for each HTTP request.

    Attributes:
        metrics: Counts the requests.
    """

    def __init__(self, tracer_provider: trace.TracerProvider, metrics: HttpMetrics) -> None:
        """Makes a telemetry.

        Args:
            tracer_provider: Whoever records; with a `NoOpTracerProvider`, trace contexts are passed on and nothing else is done.
            metrics: Counts the requests.
        """
        self.metrics = metrics
        self._tracer = tracer_provider.get_tracer("twinspan.bridge")
        self._off = isinstance(tracer_provider, NoOpTracerProvider)
        self._head = tracer_provider if isinstance(tracer_provider, HeadSampling) else None

    def begin(self, method: str, route: str, request: web.BaseRequest) -> HttpSpan:
        """Starts the span of a request, below the client's if its headers name one.

        Args:
            method: The HTTP method.
            route: The route's template, such as `/v1/models/{id}`.
            request: The request.
        """
        parent = incoming(request)
        if self._off:
            return HttpSpan(self, method, route, None, parent)
        head = self._head
        if head is not None:
            if not parent:
                traceparent = head.unsampled_root()
                if traceparent is not None:
                    return HttpSpan(self, method, route, None, (("traceparent", traceparent),))
            elif head.follows_unsampled and not is_sampled(parent):
                return HttpSpan(self, method, route, None, parent)
        name = method_name(method)
        span = self._tracer.start_span(f"{name} {route}", context_of(parent) if parent else EMPTY, SpanKind.SERVER)
        carried = outgoing(span.get_span_context())
        if not span.is_recording():
            return HttpSpan(self, method, route, None, carried)
        span.set_attributes(_request_attributes(name, route, request))
        return HttpSpan(self, method, route, span, carried)

    def client_span(self, method: str, parent: trace.Span) -> trace.Span:
        """Starts the span of an RPC below a recorded request."""
        client = self._tracer.start_span(method, trace.set_span_in_context(parent, EMPTY), SpanKind.CLIENT)
        client.set_attributes({"rpc.system.name": "grpc", "rpc.method": method})
        return client


def _request_attributes(method: str, route: str, request: web.BaseRequest) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "http.request.method": method,
        "http.route": route,
        "url.path": request.path,
        "url.scheme": request.scheme,
    }
    user_agent = request.headers.get("User-Agent")
    if user_agent is not None:
        attributes["user_agent.original"] = user_agent
    return attributes


def _grpc_code(error_kind: str | None) -> str:
    """Returns the status code that the contract gives an error kind."""
    if error_kind is None:
        return "OK"
    value = ErrorKind.DESCRIPTOR.values_by_name.get(f"ERROR_KIND_{error_kind.upper()}")
    if value is None:
        return "UNKNOWN"
    return str(code_pb2.Code.Name(value.GetOptions().Extensions[annotations_pb2.grpc_code]))
