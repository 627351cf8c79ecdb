import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.telemetry.tracecontext import EMPTY, context_of, incoming, is_sampled, outgoing
from tests.gateway.telemetry.trees import PARENT, PARENT_SPAN

TRACEPARENT = f"00-{PARENT}-{PARENT_SPAN}-01"
HEX = "0123456789abcdef"


def _hex(digits: int) -> st.SearchStrategy[str]:
    return st.text(alphabet=HEX, min_size=digits, max_size=digits)


@given(version=_hex(2), trace_id=_hex(32), span_id=_hex(16), flags=_hex(2), rest=st.sampled_from(["", "-", "-x", "x", " "]))
def test_what_is_read_agrees_with_the_library(version: str, trace_id: str, span_id: str, flags: str, rest: str) -> None:
    traceparent = f"{version}-{trace_id}-{span_id}-{flags}{rest}"
    extracted = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, EMPTY)

    assert incoming([("traceparent", traceparent)]) == outgoing(get_current_span(extracted).get_span_context())


@given(st.text(max_size=80))
def test_whatever_is_sent_is_either_ignored_or_passed_on_well_formed(text: str) -> None:
    headers = incoming([("traceparent", text)])

    assert headers == () or get_current_span(context_of(headers)).get_span_context().is_valid


def test_several_tracestates_are_one_list() -> None:
    metadata = [("tracestate", "a=1"), ("traceparent", TRACEPARENT), ("tracestate", "b=2")]

    assert incoming(metadata) == (("traceparent", TRACEPARENT), ("tracestate", "a=1,b=2"))


def test_a_malformed_tracestate_is_dropped_and_the_trace_kept() -> None:
    assert incoming([("traceparent", TRACEPARENT), ("tracestate", "no equals sign")]) == (("traceparent", TRACEPARENT),)


def test_a_tracestate_alone_means_nothing() -> None:
    assert incoming([("tracestate", "a=1")]) == ()


def test_other_metadata_and_binary_values_do_no_harm() -> None:
    assert incoming([("user-agent", "x"), ("traceparent-bin", b"\x00"), ("traceparent", TRACEPARENT)]) == (
        ("traceparent", TRACEPARENT),
    )


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_sampled_flag_is_read(flags: str, sampled: bool) -> None:
    assert is_sampled((("traceparent", f"00-{PARENT}-{PARENT_SPAN}-{flags}"),)) is sampled
    assert not is_sampled(())


def test_headers_survive_the_way_in_and_out() -> None:
    headers = (("traceparent", TRACEPARENT), ("tracestate", "a=1"))

    assert outgoing(get_current_span(context_of(headers)).get_span_context()) == headers
