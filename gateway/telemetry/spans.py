"""A tracer and a span of OpenTelemetry's API that do what the gateway needs of the SDK's, at a fraction of the cost.

The SDK's own span takes two locks, checks and copies each attribute, and asks its sampler also where the parent has settled the
question: 25 to 30 µs, five times a sampled request. This one is written by the event loop's thread alone and holds what it is
given; when it ends it becomes an ordinary `ReadableSpan` and goes to the SDK's span processors. `gateway.telemetry.sampling` hands
out this tracer, unless something is configured that only the SDK's honours.
"""

import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, Tracer
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import Attributes, AttributeValue


class LightSpan(trace.Span):
    """A span that is recorded. Once it has ended, nothing changes it any more."""

    __slots__ = (
        "_attributes",
        "_context",
        "_ended",
        "_events",
        "_kind",
        "_links",
        "_name",
        "_parent",
        "_started",
        "_status",
        "_tracer",
    )

    def __init__(
        self,
        tracer: "LightTracer",
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
        links: Sequence[Link],
        started: int,
    ) -> None:
        """Starts a span.

        Args:
            tracer: Whose span it is.
            name: Its name.
            context: What identifies it.
            parent: The span above it, if there is one.
            kind: Its kind.
            attributes: Its attributes so far; they become the span's own.
            links: Other spans it belongs to.
            started: When it began, in nanoseconds since 1970.
        """
        self._tracer = tracer
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes = attributes
        self._links = links
        self._started = started
        self._events: list[Event] = []
        self._status = Status()
        self._ended = False

    def get_span_context(self) -> SpanContext:
        """Returns what identifies the span."""
        return self._context

    def is_recording(self) -> bool:
        """Tells whether it has not ended yet."""
        return not self._ended

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Records attributes."""
        if not self._ended:
            self._attributes.update(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Records an attribute."""
        if not self._ended:
            self._attributes[key] = value

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Records an event; `timestamp` is in nanoseconds since 1970, now by default."""
        if not self._ended:
            self._events.append(Event(name, attributes, timestamp))

    def update_name(self, name: str) -> None:
        """Gives it another name."""
        if not self._ended:
            self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Says how it went; nothing changes OK any more."""
        if self._ended or self._status.status_code is StatusCode.OK:
            return
        self._status = status if isinstance(status, Status) else Status(status, description)

    def record_exception(
        self, exception: BaseException, attributes: Attributes = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        """Records an exception as an event, stack and all."""
        facts: dict[str, AttributeValue] = {
            "exception.type": type(exception).__qualname__,
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**facts, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Ends it and hands it to the span processors; `end_time` is in nanoseconds since 1970, now by default."""
        if self._ended:
            return
        self._ended = True
        tracer = self._tracer
        tracer.processor.on_end(
            ReadableSpan(
                name=self._name,
                context=self._context,
                parent=self._parent,
                resource=tracer.sdk.resource,
                attributes=self._attributes,
                events=self._events,
                links=self._links,
                kind=self._kind,
                status=self._status,
                start_time=self._started,
                end_time=end_time or time.time_ns(),
                instrumentation_scope=tracer.scope,
            )
        )


class LightTracer(trace.Tracer):
    """Starts such spans.

    Attributes:
        sdk: The SDK's tracer of the same name.
        processor: Gets every span that ends.
        scope: The tracer's name, for exporters.
    """

    def __init__(self, sdk: Tracer, scope: InstrumentationScope) -> None:
        """Makes a tracer.

        Args:
            sdk: The SDK's tracer of the same name.
            scope: The tracer's name.
        """
        self.sdk = sdk
        self.processor: SpanProcessor = sdk.span_processor
        self.scope = scope
        self._next_trace_id = sdk.id_generator.generate_trace_id
        self._next_span_id = sdk.id_generator.generate_span_id

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        """Does what the SDK's tracer does."""
        return self.sdk.start_as_current_span(*args, **kwargs)

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: ARG002 (the API's signature; nobody uses these spans as context managers)
        set_status_on_exception: bool = True,  # noqa: ARG002 (the same)
    ) -> trace.Span:
        """Starts a span below the context's; the same as the SDK's, but that span processors hear of its end alone."""
        above = trace.get_current_span(context)
        parent = above.get_span_context()
        if parent.is_valid:
            trace_id = parent.trace_id
            flags = parent.trace_flags & TraceFlags.RANDOM_TRACE_ID
        else:
            trace_id = self._next_trace_id()
            flags = TraceFlags.RANDOM_TRACE_ID
        # Below a span of this process the sampler could but repeat what it said of that one.
        if not isinstance(above, LightSpan):
            decision = self.sdk.sampler.should_sample(context, trace_id, name, kind, attributes, links).decision
            if decision is Decision.DROP:
                return NonRecordingSpan(SpanContext(trace_id, self._next_span_id(), False, TraceFlags(flags), parent.trace_state))
        sampled = TraceFlags(flags | TraceFlags.SAMPLED)
        return LightSpan(
            self,
            name,
            SpanContext(trace_id, self._next_span_id(), False, sampled, parent.trace_state),
            parent if parent.is_valid else None,
            kind,
            dict(attributes or ()),
            links or (),
            start_time or time.time_ns(),
        )
