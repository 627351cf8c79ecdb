"""What the errors of OpenAI-compatible providers are read as, whatever they look like.

Rule 29 of what users of other gateways ran into: error bodies with numeric codes answered by a 500. The reader is tolerant.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError, UpstreamFacts
from gateway.providers.openai import faults


def of_status(status: int, body: Any = None, **headers: str) -> GatewayError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return faults.of_status(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw, "acme")


def in_band(error: Any) -> GatewayError:
    return faults.in_band(error if isinstance(error, bytes) else json.dumps(error).encode(), "acme")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request"),
        (401, "auth_failed"),
        (402, "quota_exhausted"),
        (403, "permission_denied"),
        (404, "not_found"),
        (405, "invalid_request"),
        (408, "provider_timeout"),
        (409, "conflict"),
        (413, "payload_too_large"),
        (418, "invalid_request"),
        (422, "invalid_request"),
        (429, "rate_limited"),
        (499, "invalid_request"),
        (500, "provider_error"),
        (502, "provider_error"),
        (503, "provider_error"),
        (504, "provider_timeout"),
        (520, "provider_error"),
        (529, "rate_limited"),
        (599, "provider_error"),
    ],
)
def test_a_status_is_an_error_of_its_kind(status: int, kind: str) -> None:
    error = of_status(status, {"error": {"message": "Oops.", "type": "t", "param": "p", "code": "c"}})
    assert (error.kind_name, error.message, error.provider, error.param) == (kind, "Oops.", "acme", "p")
    # The client sees a status below 500 as it was. A higher one is the provider's trouble, and no status of this gateway's.
    assert error.upstream == (UpstreamFacts(status, "t", "p", "c") if status < 500 else None)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "context_length_exceeded"}, "context_exceeded"),
        (400, {"code": 400, "type": "exceed_context_size_error"}, "context_exceeded"),
        (429, {"code": "insufficient_quota"}, "quota_exhausted"),
        (429, {"type": "insufficient_quota", "code": None}, "quota_exhausted"),
        (404, {"code": "model_not_found"}, "model_not_found"),
        (400, {"code": "rate_limit_exceeded"}, "rate_limited"),
        (500, {"code": "context_length_exceeded"}, "context_exceeded"),
    ],
    ids=json.dumps,
)
def test_what_the_provider_calls_it_says_more_than_the_status(status: int, error: dict[str, Any], kind: str) -> None:
    assert of_status(status, {"error": {"message": "Oops.", **error}}).kind_name == kind


@pytest.mark.parametrize(
    ("body", "message", "facts"),
    [
        ({"error": {"message": "Oops.", "code": 7, "type": 1.5}}, "Oops.", ("1.5", None, "7")),
        ({"error": {"message": "Oops.", "code": True, "type": [], "param": {}}}, "Oops.", (None, None, None)),
        ({"error": {"message": 7}}, "7", (None, None, None)),
        ({"error": "Oops."}, "Oops.", (None, None, None)),
        ([{"error": {"message": "Oops.", "code": 400}}], "Oops.", (None, None, "400")),
        ({"message": "Oops.", "type": "t"}, "Oops.", ("t", None, None)),
        ({"error": None, "message": "Oops."}, "Oops.", (None, None, None)),
        ({"detail": "Oops."}, "Oops.", (None, None, None)),
        ({"error": {"message": "", "detail": "Oops."}}, "Oops.", (None, None, None)),
        ('{"error":{"message":"Oöps.","n":1e999}}'.encode(), "Oöps.", (None, None, None)),
        (b'{"error":{"message":"O\\ud800ps."}}', "O?ps.", (None, None, None)),
        (b'\xef\xbb\xbf{"error":{"message":"Oops."}}', "Oops.", (None, None, None)),
    ],
    ids=repr,
)
def test_the_providers_words_are_found_wherever_they_stand(
    body: Any, message: str, facts: tuple[str | None, str | None, str | None]
) -> None:
    error = of_status(400, body)
    assert (error.message, error.upstream) == (message, UpstreamFacts(400, *facts))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"\xff\xfe\x00",
        b"[]",
        b"[[]]",
        b"7",
        b"null",
        b'{"error":7}',
        b'{"error":{}}',
        b'{"error":{"message":null}}',
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"error":{"message":"cut o',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_body_without_words_gets_a_sentence_that_names_provider_and_status(body: bytes) -> None:
    error = of_status(503, body)
    assert error.kind_name == "provider_error"
    assert "acme" in error.message
    assert "503" in error.message
    assert "html" not in error.message


def test_long_words_are_cut() -> None:
    error = of_status(400, {"error": dict.fromkeys(("message", "type", "param", "code"), "x" * 100000)})
    assert error.upstream is not None
    assert len(error.message) == 2000
    assert {len(text or "") for text in (error.param, error.upstream.type, error.upstream.param, error.upstream.code)} == {256}


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ({"message": "Oops.", "type": "server_error"}, "provider_error", "Oops."),
        ({"message": "Oops.", "code": 429}, "rate_limited", "Oops."),
        ({"message": "Oops.", "code": "429"}, "rate_limited", "Oops."),
        ({"message": "Oops.", "code": "rate_limit_exceeded"}, "rate_limited", "Oops."),
        ({"message": "Oops.", "code": "context_length_exceeded"}, "context_exceeded", "Oops."),
        ({"message": "Oops.", "type": "exceed_context_size_error", "code": 400}, "context_exceeded", "Oops."),
        ({"message": "Oops.", "code": 502}, "provider_error", "Oops."),
        ({"message": "Oops.", "code": 504}, "provider_timeout", "Oops."),
        ({"message": "Oops.", "code": "²"}, "provider_error", "Oops."),
        (b'{"message":"Oops.","code":1' + b"0" * 5000 + b"}", "provider_error", None),
        ({"message": "Oops.", "code": -1}, "provider_error", "Oops."),
        ("Oops.", "provider_error", "Oops."),
        (True, "provider_error", None),
        ([1], "provider_error", None),
        (b'{"message":"Oops.","n":1e999}', "provider_error", "Oops."),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_error_in_a_stream_is_of_the_kind_that_it_says(error: Any, kind: str, message: str | None) -> None:
    found = in_band(error)
    assert (found.kind_name, found.provider, found.upstream) == (kind, "acme", None)
    assert found.message == (message or "The provider 'acme' ended the stream with an error.")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25),
        ({"retry_after_ms": "soon", "retry_after": "9"}, 9.0),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "99999999"}, None),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
    ],
    ids=repr,
)
def test_the_wait_that_a_provider_asks_for_is_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert of_status(429, **headers).retry_after == seconds


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "detail", "type", "param", "code"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.integers(400, 999), st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_provider_answers_with_is_an_error_with_a_sentence(status: int, body: bytes) -> None:
    for error in (of_status(status, body), in_band(body)):
        assert error.kind in ErrorKind.values()
        assert error.message
        error.message.encode()
