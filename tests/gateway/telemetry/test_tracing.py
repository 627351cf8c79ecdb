import asyncio
import json
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_OFF, DEFAULT_ON, Sampler, TraceIdRatioBased
from opentelemetry.trace import NoOpTracerProvider
from twinspan.v1 import chat_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError, UpstreamFacts
from gateway.telemetry.tracing import Tracing
from tests.gateway.telemetry.trees import (
    METHOD,
    PARENT,
    PARENT_SPAN,
    Node,
    expected_tree,
    ids,
    record,
    run_chat,
    without_first_chunk_time,
)

MALFORMED = [
    "",
    "garbage",
    f"00-{PARENT}-{PARENT_SPAN}",
    f"00-{PARENT.upper()}-{PARENT_SPAN}-01",
    f"00-{'0' * 32}-{PARENT_SPAN}-01",
    f"00-{PARENT}-{'0' * 16}-01",
    f"00-{PARENT}-{PARENT_SPAN}-01-more",
    f"ff-{PARENT}-{PARENT_SPAN}-01",
    f"00-{PARENT}-{PARENT_SPAN}-0g",
    f"00-{PARENT[1:]}-{PARENT_SPAN}-01",
]


def test_one_chat_is_one_tree_from_the_http_request_to_the_attempts() -> None:
    recorded = record(DEFAULT_ON)

    run_chat(recorded.provider)

    assert [without_first_chunk_time(tree) for tree in recorded.trees()] == [expected_tree()]


def test_each_attempt_sends_its_own_span_upstream() -> None:
    recorded = record(DEFAULT_ON)

    sent = run_chat(recorded.provider)

    attempts = [ids(span) for span in recorded.spans if span.name.startswith("attempt")]
    assert [headers["traceparent"] for headers in sent] == [f"00-{trace}-{span}-03" for trace, span, _ in attempts]


def test_no_text_of_the_conversation_and_no_credential_is_recorded() -> None:
    recorded = record(DEFAULT_ON)

    run_chat(recorded.provider)

    everything = "".join(span.to_json() for span in recorded.spans)
    assert "secret" not in everything
    assert "pass@" not in everything


def test_an_unsampled_chat_records_nothing_and_carries_one_trace_on() -> None:
    recorded = record(DEFAULT_OFF)

    sent = run_chat(recorded.provider)

    assert recorded.spans == ()
    assert sent[0] == sent[1]
    version, trace_id, span_id, flags = sent[0]["traceparent"].split("-")
    assert (version, flags) == ("00", "02")
    assert int(trace_id, 16)
    assert int(span_id, 16)


def test_a_sampled_remote_parent_is_continued_with_its_tracestate() -> None:
    recorded = record(DEFAULT_OFF)

    sent = run_chat(recorded.provider, {"traceparent": f"00-{PARENT}-{PARENT_SPAN}-01", "tracestate": "vendor=1,other=2"})

    (root,) = (span for span in recorded.spans if span.name.startswith("POST"))
    assert {ids(span)[0] for span in recorded.spans} == {PARENT}
    assert ids(root)[2] == PARENT_SPAN
    assert len(recorded.spans) == 6
    assert [headers["tracestate"] for headers in sent] == ["vendor=1,other=2"] * 2
    assert all(headers["traceparent"].startswith(f"00-{PARENT}-") and headers["traceparent"].endswith("-01") for headers in sent)


@pytest.mark.parametrize("tracestate", [{}, {"tracestate": "vendor=1"}], ids=["plain", "tracestate"])
@pytest.mark.parametrize("sampler", [DEFAULT_ON, DEFAULT_OFF], ids=["on", "off"])
def test_below_an_unsampled_remote_parent_nothing_is_recorded_and_its_headers_reach_upstream(
    sampler: Sampler, tracestate: dict[str, str]
) -> None:
    recorded = record(sampler)
    headers = {"traceparent": f"00-{PARENT}-{PARENT_SPAN}-00", **tracestate}

    sent = run_chat(recorded.provider, headers)

    assert recorded.spans == ()
    assert sent == [headers, headers]


@pytest.mark.parametrize(
    ("sampler", "spans"), [(ALWAYS_ON, 6), (TraceIdRatioBased(1.0), 6), (ALWAYS_OFF, 0), (TraceIdRatioBased(0.0), 0)]
)
@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_sampler_that_does_not_ask_the_parent_decides_for_itself(sampler: Sampler, spans: int, flags: str) -> None:
    recorded = record(sampler)

    run_chat(recorded.provider, {"traceparent": f"00-{PARENT}-{PARENT_SPAN}-{flags}"})

    assert len(recorded.spans) == spans


@pytest.mark.parametrize("traceparent", MALFORMED)
@pytest.mark.parametrize("sampler", [DEFAULT_ON, DEFAULT_OFF], ids=["on", "off"])
def test_a_malformed_traceparent_is_ignored_and_a_new_trace_begun(traceparent: str, sampler: Sampler) -> None:
    recorded = record(sampler)

    sent = run_chat(recorded.provider, {"traceparent": traceparent, "tracestate": "vendor=1"})

    assert len(recorded.spans) == (6 if sampler is DEFAULT_ON else 0)
    assert all(PARENT[1:] not in headers["traceparent"] and "tracestate" not in headers for headers in sent)


def test_two_traceparents_are_as_good_as_none() -> None:
    recorded = record(DEFAULT_ON)
    header = ("traceparent", f"00-{PARENT}-{PARENT_SPAN}-01")

    Tracing(recorded.provider).server_span(METHOD, [header, header]).end("OK")

    assert [ids(span)[2] for span in recorded.spans] == [None]


def test_a_traceparent_of_a_later_version_is_continued_as_version_00() -> None:
    recorded = record(DEFAULT_ON)

    sent = run_chat(recorded.provider, {"traceparent": f"cc-{PARENT}-{PARENT_SPAN}-00-what-ever"})

    assert recorded.spans == ()
    assert sent == [{"traceparent": f"00-{PARENT}-{PARENT_SPAN}-00"}] * 2


def test_flags_that_the_gateway_does_not_know_are_not_passed_on() -> None:
    sent = run_chat(NoOpTracerProvider(), {"traceparent": f"00-{PARENT}-{PARENT_SPAN}-ff"})

    assert sent == [{"traceparent": f"00-{PARENT}-{PARENT_SPAN}-03"}] * 2


@pytest.mark.parametrize("flags", ["00", "01"])
def test_with_tracing_off_the_caller_s_context_still_reaches_upstream(flags: str) -> None:
    headers = {"traceparent": f"00-{PARENT}-{PARENT_SPAN}-{flags}", "tracestate": "vendor=1"}

    assert run_chat(NoOpTracerProvider(), headers) == [headers, headers]


def test_with_tracing_off_no_context_is_made_up() -> None:
    assert run_chat(NoOpTracerProvider()) == [{}, {}]
    assert run_chat(NoOpTracerProvider(), {"traceparent": "garbage"}) == [{}, {}]


@pytest.mark.parametrize(
    ("error", "error_type", "status", "description"),
    [
        (GatewayError(ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT, "Too slow."), "provider_timeout", "ERROR", "Too slow."),
        (
            GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, "You said: a secret", upstream=UpstreamFacts(400)),
            "invalid_request",
            "ERROR",
            "The provider answered with HTTP status 400.",
        ),
        (ValueError("a secret"), "internal_error", "ERROR", "ValueError"),
        (asyncio.CancelledError(), "cancelled", "UNSET", None),
        (GeneratorExit(), "cancelled", "UNSET", None),
        (GatewayError(ErrorKind.ERROR_KIND_CANCELLED, "The caller left."), "cancelled", "UNSET", None),
    ],
    ids=["gateway", "upstream", "unforeseen", "cancelled", "closed", "cancelled kind"],
)
def test_a_failure_sets_the_status_and_a_cancellation_only_the_error_type(
    error: BaseException, error_type: str, status: str, description: str | None
) -> None:
    recorded = record(DEFAULT_ON)
    tracing = Tracing(recorded.provider)
    server = tracing.server_span(METHOD, ())
    chat = tracing.chat_span(server, chat_pb2.ChatRequest(model="m"), stream=False)
    attempt = tracing.attempt_span(chat, provider="local", model="m", number=1)

    attempt.end(error)
    chat.end(error, attempts=1)
    server.end("CANCELLED" if error_type == "cancelled" else "UNKNOWN", error)

    (tree,) = recorded.trees()
    for node in (tree, tree.children[0], tree.children[0].children[0]):
        assert (node.attributes["error.type"], node.status, node.description) == (error_type, status, description)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("OK", "UNSET"),
        ("INVALID_ARGUMENT", "UNSET"),
        ("RESOURCE_EXHAUSTED", "UNSET"),
        ("UNAVAILABLE", "ERROR"),
        ("INTERNAL", "ERROR"),
    ],
)
def test_a_server_span_fails_with_the_server_s_own_faults_alone(code: str, status: str) -> None:
    recorded = record(DEFAULT_ON)

    Tracing(recorded.provider).server_span(METHOD, ()).end(code)

    attributes = {"rpc.system.name": "grpc", "rpc.method": METHOD[1:], "rpc.response.status_code": code}
    if code != "OK":
        attributes["error.type"] = code
    assert recorded.trees() == [Node(METHOD[1:], "SERVER", attributes, status)]


def test_ending_twice_or_using_an_ended_span_changes_nothing() -> None:
    recorded = record(DEFAULT_ON)
    tracing = Tracing(recorded.provider)
    server = tracing.server_span(METHOD, ())
    chat = tracing.chat_span(server, chat_pb2.ChatRequest(model="m"), stream=False)
    attempt = tracing.attempt_span(chat, provider="local", model="m", number=1)
    for _ in range(2):
        attempt.end(status=200)
        chat.end(attempts=1)
        server.end("OK")
    before = [span.to_json() for span in recorded.spans]

    attempt.end(ValueError(), status=500)
    chat.first_token()
    chat.end(ValueError())
    server.end("UNKNOWN")
    server.set_attributes({"late": True})

    assert [span.to_json() for span in recorded.spans] == before
    assert [span.name for span in recorded.spans] == ["attempt local", "chat m", METHOD[1:]]


def test_log_fields_and_exemplars_name_the_trace_before_and_after_the_end() -> None:
    recorded = record(DEFAULT_ON)
    server = Tracing(recorded.provider).server_span(METHOD, ())
    before = (server.log_fields, server.sampled_trace_id)

    server.end("OK")

    trace_id, span_id, _ = ids(recorded.spans[0])
    assert before == (server.log_fields, server.sampled_trace_id) == ({"trace_id": trace_id, "span_id": span_id}, trace_id)


def test_an_unsampled_span_names_its_trace_in_logs_but_not_in_exemplars() -> None:
    server = Tracing(record(DEFAULT_OFF).provider).server_span(METHOD, [("traceparent", f"00-{PARENT}-{PARENT_SPAN}-00")])

    assert server.log_fields == {"trace_id": PARENT, "span_id": PARENT_SPAN}
    assert server.sampled_trace_id is None
    assert not server.recording


def test_the_document_names_every_attribute() -> None:
    document = (Path(__file__).parents[3] / "docs/tracing.md").read_text(encoding="utf-8")
    recorded = record(DEFAULT_ON)

    run_chat(recorded.provider)

    names = {name for span in recorded.spans for name in json.loads(span.to_json())["attributes"]}
    assert [name for name in sorted(names) if f"`{name}`" not in document] == []
