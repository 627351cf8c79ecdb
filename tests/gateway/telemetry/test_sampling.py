from collections.abc import Sequence

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from gateway.telemetry.sampling import HeadSamplingTracerProvider
from gateway.telemetry.spans import LightSpan
from gateway.telemetry.tracecontext import EMPTY
from gateway.telemetry.tracing import Tracing
from tests.gateway.telemetry.trees import METHOD, PARENT, PARENT_SPAN, ids, record

VALUES = {
    "always_on": 1.0,
    "always_off": 0.0,
    "traceidratio": 0.25,
    "parentbased_always_on": 1.0,
    "parentbased_always_off": 0.0,
    "parentbased_traceidratio": 0.25,
}


class _ByName(Sampler):
    """Keeps spans of one name, which no shortcut could know."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE if name == METHOD[1:] else Decision.DROP)

    def get_description(self) -> str:
        return "ByName"


@pytest.mark.parametrize("name", VALUES)
def test_every_standard_value_of_otel_traces_sampler_decides_as_the_sdk_would(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    sampler = TracerProvider(shutdown_on_exit=False).sampler
    recorded = record(sampler)
    tracing = Tracing(recorded.provider)

    unsampled: list[str] = []
    for _ in range(400):
        span = tracing.server_span(METHOD, ())
        if not span.recording:
            unsampled.append(span.log_fields["trace_id"])
        span.end("OK")

    sampled = [ids(span)[0] for span in recorded.spans]
    for decision, traces in ((Decision.RECORD_AND_SAMPLE, sampled), (Decision.DROP, unsampled)):
        assert {sampler.should_sample(EMPTY, int(trace_id, 16), METHOD).decision for trace_id in traces} <= {decision}
    assert bool(sampled) == (VALUES[name] > 0)
    assert bool(unsampled) == (VALUES[name] < 1)
    assert len({*sampled, *unsampled}) == 400


@pytest.mark.parametrize("sampler", [TraceIdRatioBased(0.25), ParentBasedTraceIdRatio(0.25)])
def test_a_trace_that_may_be_sampled_is_sampled_by_the_very_next_root_span(sampler: Sampler) -> None:
    provider = record(sampler).provider
    tracer = provider.get_tracer("test")

    recording = [tracer.start_span("root", EMPTY).is_recording() for _ in range(400) if provider.unsampled_root() is None]

    assert recording
    assert all(recording)


@pytest.mark.parametrize(
    ("sampler", "follows"),
    [
        (DEFAULT_ON, True),
        (DEFAULT_OFF, True),
        (ParentBasedTraceIdRatio(0.1), True),
        (ALWAYS_ON, False),
        (ALWAYS_OFF, False),
        (TraceIdRatioBased(0.1), False),
        (ParentBased(ALWAYS_ON, remote_parent_not_sampled=ALWAYS_ON), False),
        (ParentBased(_ByName()), False),
    ],
)
def test_only_a_sampler_that_obeys_an_unsampled_parent_lets_the_sdk_be_skipped(sampler: Sampler, follows: bool) -> None:
    assert HeadSamplingTracerProvider(sampler, shutdown_on_exit=False).follows_unsampled is follows


def test_a_parent_based_sampler_with_a_rule_of_its_own_for_unsampled_parents_is_asked() -> None:
    recorded = record(ParentBased(ALWAYS_OFF, remote_parent_not_sampled=ALWAYS_ON))

    Tracing(recorded.provider).server_span(METHOD, [("traceparent", f"00-{PARENT}-{PARENT_SPAN}-00")]).end("OK")

    assert [ids(span)[0] for span in recorded.spans] == [PARENT]


def test_any_other_sampler_is_asked_through_the_sdk() -> None:
    recorded = record(_ByName())
    tracing = Tracing(recorded.provider)

    tracing.server_span(METHOD, ()).end("OK")
    tracing.server_span("/other.Service/Method", ()).end("OK")

    assert recorded.provider.unsampled_root() is None
    assert [span.name for span in recorded.spans] == [METHOD[1:]]


def test_span_limits_are_left_to_the_sdk_which_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    recorded = record(DEFAULT_ON)

    Tracing(recorded.provider).server_span(METHOD, ()).end("OK")

    assert dict(recorded.spans[0].attributes or {}) == {
        "rpc.system.name": "grp",
        "rpc.method": "twi",
        "rpc.response.status_code": "OK",
    }


def test_without_limits_spans_are_the_light_ones() -> None:
    span = record(DEFAULT_ON).provider.get_tracer("test").start_span("a")

    assert isinstance(span, LightSpan)
