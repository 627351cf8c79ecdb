"""A tracer provider whose unsampled requests cost next to nothing, and whose sampled ones cost half.

The SDK builds a full span context also for a span that nobody keeps. The standard samplers look at nothing but the trace id and
the parent, so a random number and one comparison decide on a new trace, and a formatted `traceparent` is all that an unsampled
request needs. `gateway.telemetry.tracing` and `bridge.telemetry.tracing` ask here first, and start a span only if the answer is
yes; that is then a `LightSpan`. With a sampler that is not one of the standard ones, or with span limits, everything is the SDK's
own.
"""

import os
import random
import re
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.util.types import Attributes

from gateway.telemetry.spans import LightTracer

# What samplers say of themselves, which is all of their make-up that the SDK publishes.
_STANDARD = re.compile(
    r"(?P<parent>ParentBased\{root:)?(?:(?P<on>AlwaysOn)Sampler|(?P<off>AlwaysOff)Sampler|TraceIdRatioBased\{(?P<ratio>[0-9.e-]+)\})"
    r"(?(parent),remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,"
    r"localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler\})"
)

_LOW_64 = (1 << 64) - 1
_LOW_128 = (1 << 128) - 1


class HeadSamplingTracerProvider(sdk.TracerProvider):
    """The SDK's provider, which also decides on root spans ahead of time.

    Attributes:
        follows_unsampled: Whether a remote parent that is not sampled settles that its children are not.
    """

    def __init__(self, sampler: Sampler | None = None, **options: Any) -> None:
        """Makes a provider.

        Args:
            sampler: Decides what is recorded; None takes what `OTEL_TRACES_SAMPLER` says.
            options: Whatever else the SDK's provider takes, but for `id_generator`.
        """
        self._ids = _DecidedIds()
        super().__init__(sampler=sampler, id_generator=self._ids, **options)
        standard = _STANDARD.fullmatch(self.sampler.get_description())
        self.follows_unsampled = standard is not None and standard["parent"] is not None
        self._bound = None if standard is None else _bound(standard)
        limits = [name for name in os.environ if name.startswith("OTEL_") and name.endswith("_LIMIT")]
        self._light = standard is not None and not limits and "span_limits" not in options

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        """Returns a tracer of this name."""
        tracer = super().get_tracer(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        if not self._light or not isinstance(tracer, sdk.Tracer):
            return tracer
        scope = InstrumentationScope(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        return LightTracer(tracer, scope)

    def unsampled_root(self) -> str | None:
        """Begins a trace: returns its `traceparent` if it is not sampled, so that there is nothing to record.

        None means that it may be sampled: the caller then starts a root span, at once and on the same thread, and that span says
        whether it is. Only one thread may call this, the event loop's.
        """
        bound = self._bound
        if bound is None:
            return None
        bits = random.getrandbits(192)  # an identifier, not a secret: the SDK draws its own in the same way
        if bits & _LOW_64 < bound:
            self._ids.decided = bits & _LOW_128
            return None
        return f"00-{bits & _LOW_128:032x}-{bits >> 128:016x}-02"


class _DecidedIds(RandomIdGenerator):
    """Random ids; but the next trace id is the one that was decided on, so that the sampler comes to the same decision."""

    def __init__(self) -> None:
        self.decided = 0

    def generate_trace_id(self) -> int:
        decided, self.decided = self.decided, 0
        return decided or super().generate_trace_id()


def _bound(standard: re.Match[str]) -> int:
    """Returns below what the low 64 bits of a root's trace id mean that it is sampled."""
    ratio = 1.0 if standard["on"] else 0.0 if standard["off"] else float(standard["ratio"])
    return TraceIdRatioBased.get_bound_for_rate(ratio)
