"""The core's spans: RPC server, chat, attempt; and what an unsampled request pays in their place.

A span is a value that its owner passes on and ends; nothing is kept in context variables. Where nothing is recorded, the same
objects carry the trace context on, call no SDK and build no attribute. Below are OpenTelemetry's API and
`gateway.telemetry.tracecontext`; the interceptors and the exchange stand above. Names and attributes follow the semantic
conventions for RPC, HTTP and generative AI; `docs/tracing.md` lists them. No message content is recorded here.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping

from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from twinspan.v1 import chat_pb2, content_pb2

from gateway.errors import GatewayError
from gateway.telemetry.attributes import Attributes, of_answer, of_attempt, of_request
from gateway.telemetry.sampling import HeadSamplingTracerProvider
from gateway.telemetry.tracecontext import EMPTY, Headers, context_of, incoming, is_sampled, outgoing

CANCELLED = "cancelled"
"""The `error.type` of a span whose caller went away. It is no fault, so the span's status stays unset."""

# The codes that are the server's fault, by the semantic conventions for gRPC; any other leaves the span's status unset.
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class Span:
    """One step of a request. It must be ended; ending it twice, or using it after its end, does nothing."""

    __slots__ = ("_headers", "_span", "recording")

    def __init__(self, span: trace.Span | None, headers: Headers | None = None) -> None:
        """Wraps a span.

        Args:
            span: What records; None if nothing does.
            headers: What carries the trace context on; None takes the span's own.
        """
        self._span = span
        self._headers = headers
        self.recording = span is not None
        """Whether it is recorded and has not ended: ask before an attribute is worked out that is not at hand."""

    @property
    def headers(self) -> Headers:
        """`traceparent` and `tracestate` for whoever is called on behalf of this span; empty if there is no trace."""
        headers = self._headers
        if headers is None:
            headers = self._headers = outgoing(self._span.get_span_context()) if self._span is not None else ()
        return headers

    @property
    def sampled_trace_id(self) -> str | None:
        """The trace's id in 32 hexadecimal digits, if this span is a part of it that can be looked at: for exemplars."""
        return self.headers[0][1][3:35] if self._span is not None else None

    @property
    def log_fields(self) -> dict[str, str]:
        """`trace_id` and `span_id`, for the `extra` of a log line; empty if there is no trace."""
        headers = self.headers
        return {"trace_id": headers[0][1][3:35], "span_id": headers[0][1][36:52]} if headers else {}

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Records further attributes."""
        if self.recording and self._span is not None:
            self._span.set_attributes(attributes)

    def _finish(
        self, attributes: Attributes, error_type: str | None, *, failed: bool = False, description: str | None = None
    ) -> None:
        span = self._span
        if span is None or not self.recording:
            return
        self.recording = False
        if error_type is not None:
            attributes["error.type"] = error_type
            if failed:
                span.set_status(StatusCode.ERROR, description)
        span.set_attributes(attributes)
        span.end()


class ServerSpan(Span):
    """An RPC that the core serves."""

    __slots__ = ()

    def end(self, code: str, error: BaseException | None = None) -> None:
        """Ends the span.

        Args:
            code: The gRPC status code's name, such as `OK`.
            error: Why it failed, if it did.
        """
        if not self.recording:
            return
        error_type, description = _describe(error)
        if error is None and code != "OK":
            error_type = code
        attributes: Attributes = {"rpc.response.status_code": code}
        self._finish(attributes, error_type, failed=code in _SERVER_FAULTS, description=description)


class OperationSpan(Span):
    """One request to a model, all its attempts together, as the semantic conventions for generative AI describe it."""

    __slots__ = ("_first_token_at", "_started_at")

    def __init__(self, span: trace.Span | None, headers: Headers | None = None) -> None:
        """Wraps a span; see `Span`."""
        super().__init__(span, headers)
        self._started_at = time.time_ns() if span is not None else 0
        self._first_token_at = 0

    def first_token(self) -> None:
        """Records that the first piece of the answer has come, as the event `first_token`; only the first call counts."""
        span = self._span
        if span is None or self._first_token_at or not self.recording:
            return
        self._first_token_at = time.time_ns()
        span.add_event("first_token", timestamp=self._first_token_at)
        span.set_attribute("gen_ai.response.time_to_first_chunk", (self._first_token_at - self._started_at) / 1e9)

    def end(
        self,
        error: BaseException | None = None,
        *,
        provider: str = "",
        attempts: int = 0,
        info: chat_pb2.ResponseInfo | None = None,
        usage: content_pb2.Usage | None = None,
        finish_reasons: Iterable[content_pb2.FinishReason.ValueType] = (),
        cost_usd: float | None = None,
    ) -> None:
        """Ends the span; whatever is known of the answer is given also if it failed.

        Args:
            error: Why it failed, if it did; `asyncio.CancelledError` if the caller went away.
            provider: The provider that answered.
            attempts: How many attempts were made.
            info: What identifies the answer.
            usage: What it consumed.
            finish_reasons: Why each choice ended, in order.
            cost_usd: What all attempts cost, in US dollars; None if that is not known.
        """
        if not self.recording:
            return
        attributes = of_answer(provider, attempts, info, usage, finish_reasons)
        if cost_usd is not None:
            attributes["twinspan.cost_usd"] = cost_usd
        error_type, description = _describe(error)
        self._finish(attributes, error_type, failed=error_type != CANCELLED, description=description)


class AttemptSpan(Span):
    """One request to a provider. Its `headers` go with that request."""

    __slots__ = ()

    def end(self, error: BaseException | None = None, *, status: int = 0) -> None:
        """Ends the span.

        Args:
            error: Why it failed, if it did; `asyncio.CancelledError` if the caller went away.
            status: The HTTP status of the answer; 0 if there was none.
        """
        if not self.recording:
            return
        attributes: Attributes = {"http.response.status_code": status} if status else {}
        error_type, description = _describe(error)
        self._finish(attributes, error_type, failed=error_type != CANCELLED, description=description)


class Tracing:
    """Makes the core's spans."""

    def __init__(self, tracer_provider: trace.TracerProvider) -> None:
        """Makes a tracing.

        Args:
            tracer_provider: Whoever records; with a `NoOpTracerProvider`, trace contexts are passed on and nothing else is done.
        """
        self._tracer = tracer_provider.get_tracer("twinspan.gateway")
        self._off = isinstance(tracer_provider, NoOpTracerProvider)
        self._head = tracer_provider if isinstance(tracer_provider, HeadSamplingTracerProvider) else None

    def server_span(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> ServerSpan:
        """Starts the span of an RPC, below the caller's if its metadata names one.

        Args:
            method: The full name with its slash, such as `/twinspan.v1.ChatService/Stream`.
            metadata: The call's metadata, keys in lower case.
        """
        parent = incoming(metadata)
        if self._off:
            return ServerSpan(None, parent)
        head = self._head
        if head is not None:
            if not parent:
                traceparent = head.unsampled_root()
                if traceparent is not None:
                    return ServerSpan(None, (("traceparent", traceparent),))
            elif head.follows_unsampled and not is_sampled(parent):
                return ServerSpan(None, parent)
        name = method.removeprefix("/")
        span = self._tracer.start_span(name, context_of(parent) if parent else EMPTY, SpanKind.SERVER)
        if not span.is_recording():
            return ServerSpan(None, outgoing(span.get_span_context()))
        span.set_attributes({"rpc.system.name": "grpc", "rpc.method": name})
        return ServerSpan(span)

    def chat_span(self, parent: Span, chat: chat_pb2.ChatRequest, *, stream: bool) -> OperationSpan:
        """Starts the span of one chat.

        Args:
            parent: The RPC's span.
            chat: What is asked.
            stream: Whether the caller reads the answer as a stream.
        """
        span = self._child(parent, "chat", chat.model)
        if span is None:
            return OperationSpan(None, parent.headers)
        span.set_attributes(of_request(chat, stream=stream))
        return OperationSpan(span)

    def operation_span(self, parent: Span, operation: str, model: str) -> OperationSpan:
        """Starts the span of one request to a model that is no chat.

        Args:
            parent: The RPC's span.
            operation: What is asked, such as `embeddings`.
            model: The model or agent that the client names; empty if it names none.
        """
        span = self._child(parent, operation, model)
        if span is None:
            return OperationSpan(None, parent.headers)
        span.set_attribute("gen_ai.operation.name", operation)
        if model:
            span.set_attribute("gen_ai.request.model", model)
        return OperationSpan(span)

    def attempt_span(
        self,
        parent: Span,
        *,
        provider: str,
        model: str,
        number: int,
        url: str = "",
        retry_reason: str = "",
        method: str = "POST",
    ) -> AttemptSpan:
        """Starts the span of one request to a provider.

        Args:
            parent: The chat's span.
            provider: The provider's name.
            model: The model's name, as the provider is asked for it.
            number: Which attempt of this chat it is, from 1.
            url: Where the request goes; empty if it does not go over HTTP. Its query is not recorded.
            retry_reason: The error kind of the attempt before it, if there was one.
            method: The HTTP method.
        """
        span = self._child(parent, "attempt", provider)
        if span is None:
            return AttemptSpan(None, parent.headers)
        span.set_attributes(of_attempt(provider, model, number, url, retry_reason, method))
        return AttemptSpan(span)

    def _child(self, parent: Span, operation: str, subject: str) -> trace.Span | None:
        above = parent._span  # noqa: SLF001 (a span of this module)
        if above is None:
            # A child of a span that is not recorded: every standard sampler decides for it as for its parent, so none is asked.
            return None
        context = trace.set_span_in_context(above, EMPTY)
        span = self._tracer.start_span(f"{operation} {subject}".rstrip(), context, SpanKind.CLIENT)
        return span if span.is_recording() else None


def _describe(error: BaseException | None) -> tuple[str | None, str | None]:
    """Returns an error's `error.type` and a description that quotes neither a provider nor a stack, since both may hold content."""
    if error is None:
        return None, None
    if isinstance(error, GatewayError):
        if error.upstream is not None:
            return error.kind_name, f"The provider answered with HTTP status {error.upstream.status}."
        return error.kind_name, error.message
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CANCELLED, None
    return "internal_error", type(error).__qualname__
