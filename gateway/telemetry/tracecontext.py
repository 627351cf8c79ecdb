"""W3C trace context, in and out: `traceparent` and `tracestate` as gRPC metadata and as HTTP headers.

OpenTelemetry's own propagator does the work wherever a span may come of it. Where none does, the header is carried on as it came,
after one regular expression has found it well-formed: that is nearly every request of a gateway that samples, and it costs a
tenth. `gateway.telemetry.tracing` stands above.
"""

import re
from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Headers = tuple[tuple[str, str], ...]
"""`traceparent`, and `tracestate` if there is one, ready to be sent; empty if there is no trace."""

EMPTY = Context()
"""A context without a span: nothing is taken from context variables."""

# Version 00, ids that are not zero, and no flags but `sampled` (1) and `random` (2), since others must not be passed on.
_CANONICAL = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")
_PROPAGATOR = TraceContextTextMapPropagator()


def incoming(metadata: Iterable[tuple[str, str | bytes]]) -> Headers:
    """Returns the trace context of a request, in canonical form; nothing if it has none or a malformed one.

    Args:
        metadata: The request's metadata, keys in lower case.
    """
    traceparent: str | None = None
    tracestate = ""
    for key, value in metadata:
        if key == "traceparent":
            if traceparent is not None:
                return ()
            traceparent = str(value)
        elif key == "tracestate":
            tracestate = f"{tracestate},{value!s}" if tracestate else str(value)
    if traceparent is None:
        return ()
    if not tracestate and _CANONICAL.fullmatch(traceparent):
        return (("traceparent", traceparent),)
    carrier = {"traceparent": traceparent, "tracestate": tracestate} if tracestate else {"traceparent": traceparent}
    return outgoing(get_current_span(_PROPAGATOR.extract(carrier, EMPTY)).get_span_context())


def outgoing(span_context: SpanContext) -> Headers:
    """Returns the headers that carry a span's context on; none if it is invalid."""
    if not span_context.is_valid:
        return ()
    traceparent = f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{span_context.trace_flags & 3:02x}"
    state = span_context.trace_state
    if not state:
        return (("traceparent", traceparent),)
    return ("traceparent", traceparent), ("tracestate", state.to_header())


def context_of(headers: Headers) -> Context:
    """Returns a context whose current span is the remote one that these headers name."""
    return _PROPAGATOR.extract(dict(headers), EMPTY) if headers else EMPTY


def is_sampled(headers: Headers) -> bool:
    """Tells whether the trace of these headers is sampled."""
    return bool(headers) and headers[0][1][-1] in "13"
