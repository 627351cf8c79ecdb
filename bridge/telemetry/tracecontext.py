"""W3C trace context, in from HTTP headers and out as gRPC metadata.

OpenTelemetry's own propagator does the work wherever there is something out of the ordinary. A plain `traceparent` is carried on
as it came, once one regular expression has found it well-formed, which costs a tenth. The core reads the same from metadata.
"""

import re

from aiohttp import web
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Headers = tuple[tuple[str, str], ...]
"""`traceparent`, and `tracestate` if there is one; empty if there is no trace."""

EMPTY = Context()
"""A context without a span: nothing is taken from context variables."""

# Version 00, ids that are not zero, and no flags but `sampled` (1) and `random` (2), since others must not be passed on.
_CANONICAL = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")
_PROPAGATOR = TraceContextTextMapPropagator()


def incoming(request: web.BaseRequest) -> Headers:
    """Returns the trace context of a request, in canonical form; nothing if it has none or a malformed one."""
    headers = request.headers
    if "traceparent" not in headers:
        return ()
    given = headers.getall("traceparent")
    if len(given) > 1:
        return ()
    tracestate = ",".join(headers.getall("tracestate", ()))
    if not tracestate and _CANONICAL.fullmatch(given[0]):
        return (("traceparent", given[0]),)
    carrier = {"traceparent": given[0], "tracestate": tracestate} if tracestate else {"traceparent": given[0]}
    return outgoing(get_current_span(_PROPAGATOR.extract(carrier, EMPTY)).get_span_context())


def outgoing(span_context: SpanContext) -> Headers:
    """Returns the metadata that carries a span's context on; none if it is invalid."""
    if not span_context.is_valid:
        return ()
    traceparent = f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{span_context.trace_flags & 3:02x}"
    state = span_context.trace_state
    if not state:
        return (("traceparent", traceparent),)
    return ("traceparent", traceparent), ("tracestate", state.to_header())


def context_of(headers: Headers) -> Context:
    """Returns a context whose current span is the remote one that these name."""
    return _PROPAGATOR.extract(dict(headers), EMPTY) if headers else EMPTY


def is_sampled(headers: Headers) -> bool:
    """Tells whether the trace of these headers is sampled."""
    return bool(headers) and headers[0][1][-1] in "13"
