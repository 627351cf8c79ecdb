"""The table of what an error blames, whole: by the status and the words of real providers."""

import json

import pytest
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.accounts.faults import RESTS, Fault, Rest, fault_of, rest_seconds
from gateway.errors import GatewayError
from gateway.providers.openai import faults


@pytest.mark.parametrize(
    ("status", "error", "blamed"),
    [
        (400, {}, Fault.OTHER),
        (401, {"code": "invalid_api_key"}, Fault.AUTH),
        (402, {}, Fault.QUOTA),
        (403, {}, Fault.AUTH),
        (403, {"code": "model_not_found"}, Fault.OTHER),
        (404, {}, Fault.OTHER),
        (408, {}, Fault.OTHER),
        (429, {}, Fault.RATE),
        (429, {"code": "insufficient_quota"}, Fault.QUOTA),
        (429, {"type": "insufficient_quota"}, Fault.QUOTA),
        (500, {}, Fault.SERVER),
        (502, {}, Fault.SERVER),
        (503, {}, Fault.CAPACITY),
        (504, {}, Fault.SERVER),
        (529, {}, Fault.CAPACITY),
    ],
)
def test_an_answer_blames_by_its_status_and_its_code(status: int, error: dict[str, str], blamed: Fault) -> None:
    assert fault_of(faults.of_status(status, {}, json.dumps({"error": error}).encode(), "acme")) is blamed


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        ({"code": 429}, Fault.RATE),
        ({"code": 503}, Fault.CAPACITY),
        ({"code": "insufficient_quota"}, Fault.QUOTA),
        ({}, Fault.OTHER),
    ],
)
def test_an_error_in_a_stream_blames_as_an_answer_does(error: dict[str, object], blamed: Fault) -> None:
    assert fault_of(faults.in_band(json.dumps(error).encode(), "acme")) is blamed


@pytest.mark.parametrize("kind", [ErrorKind.ERROR_KIND_NETWORK_ERROR, ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT])
def test_without_an_answer_no_account_is_to_blame(kind: ErrorKind.ValueType) -> None:
    assert fault_of(GatewayError(kind, "Lost.")) is Fault.OTHER


def test_the_rests_are_those_that_the_documentation_states() -> None:
    assert {
        Fault.AUTH: Rest(120.0, grows=False, whole=True, shared=False),
        Fault.QUOTA: Rest(60.0, grows=True, whole=True, shared=False),
        Fault.RATE: Rest(0.5, grows=True, whole=False, shared=False),
        Fault.CAPACITY: Rest(30.0, grows=True, whole=False, shared=False),
        Fault.SERVER: Rest(1.0, grows=False, whole=False, shared=True),
    } == RESTS


@pytest.mark.parametrize(
    ("fault", "level", "jitter", "seconds"),
    [
        (Fault.RATE, 0, 0.0, 0.5),
        (Fault.RATE, 3, 0.0, 4.0),
        (Fault.RATE, 99, 0.0, 0.5 * 2**15),
        (Fault.QUOTA, 1, 1.0, 126.0),
        (Fault.CAPACITY, 0, -1.0, 28.5),
        (Fault.AUTH, 7, 0.0, 120.0),
    ],
)
def test_a_rest_doubles_up_to_level_15_with_a_twentieth_of_jitter(fault: Fault, level: int, jitter: float, seconds: float) -> None:
    assert rest_seconds(RESTS[fault], level, jitter) == pytest.approx(seconds)
