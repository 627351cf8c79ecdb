"""The error matrix: what each kind of error is on either surface. The table is the contract's, written out once more."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import CollectorRegistry
from twinspan.v1 import chat_pb2, chat_pb2_grpc
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.app import BridgeSettings, build
from bridge.server import ServerSettings as HttpSettings
from bridge.telemetry.http import HttpTelemetry
from bridge.telemetry.metrics import HttpMetrics
from gateway.access.keys import KeyRing
from gateway.access.policy import Policy
from gateway.errors import GatewayError, UpstreamFacts
from gateway.inprocess import InProcessChannel
from gateway.rpc.edge import Edge
from gateway.rpc.registry import HandlerRegistry
from gateway.server import GrpcServer, ServerSettings
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import Tracing

TOKEN = "ts-a-token-of-the-matrix"
MATRIX = {
    "invalid_request": (400, "INVALID_ARGUMENT", "invalid_request_error", "invalid_request"),
    "context_exceeded": (400, "INVALID_ARGUMENT", "invalid_request_error", "context_length_exceeded"),
    "payload_too_large": (413, "RESOURCE_EXHAUSTED", "invalid_request_error", "payload_too_large"),
    "auth_failed": (401, "UNAUTHENTICATED", "authentication_error", "invalid_api_key"),
    "permission_denied": (403, "PERMISSION_DENIED", "permission_error", "permission_denied"),
    "model_not_found": (404, "NOT_FOUND", "invalid_request_error", "model_not_found"),
    "not_found": (404, "NOT_FOUND", "invalid_request_error", "not_found"),
    "method_not_allowed": (405, "UNIMPLEMENTED", "invalid_request_error", "method_not_allowed"),
    "conflict": (409, "ABORTED", "invalid_request_error", "conflict"),
    "rate_limited": (429, "RESOURCE_EXHAUSTED", "rate_limit_error", "rate_limit_exceeded"),
    "quota_exhausted": (429, "RESOURCE_EXHAUSTED", "insufficient_quota", "insufficient_quota"),
    "budget_exceeded": (429, "RESOURCE_EXHAUSTED", "insufficient_quota", "budget_exceeded"),
    "cancelled": (499, "CANCELLED", "invalid_request_error", "cancelled"),
    "provider_error": (502, "UNAVAILABLE", "api_error", "provider_error"),
    "network_error": (502, "UNAVAILABLE", "api_error", "network_error"),
    "bouncer_error": (502, "UNAVAILABLE", "api_error", "bouncer_error"),
    "provider_timeout": (504, "DEADLINE_EXCEEDED", "timeout_error", "provider_timeout"),
    "deadline_exceeded": (504, "DEADLINE_EXCEEDED", "timeout_error", "deadline_exceeded"),
    "targets_exhausted": (503, "UNAVAILABLE", "api_error", "targets_exhausted"),
    "not_configured": (503, "UNAVAILABLE", "api_error", "not_configured"),
    "overloaded": (503, "UNAVAILABLE", "api_error", "overloaded"),
    "internal_error": (500, "INTERNAL", "api_error", "internal_error"),
}


class Failing:
    """A ChatService that fails as it is told to."""

    def __init__(self) -> None:
        self.error: Exception = AssertionError()

    async def Complete(self, _request: Any, _call: Any) -> Any:  # noqa: N802 (the RPC's name)
        raise self.error

    async def Stream(self, _request: Any, _call: Any) -> None:  # noqa: N802 (the RPC's name)
        raise self.error


@dataclass
class Surfaces:
    """One service on both surfaces."""

    service: Failing
    rest: httpx.AsyncClient
    stub: Any

    async def over_rest(self, *, stream: bool) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream}
        return await self.rest.post("/v1/chat/completions", json=body)

    async def over_grpc(self, *, stream: bool) -> grpc.aio.AioRpcError:
        metadata = (("authorization", f"Bearer {TOKEN}"), ("x-request-id", "my-id"))
        if stream:
            answer = self.stub.Stream(chat_pb2.StreamRequest(), metadata=metadata, timeout=5).read()
        else:
            answer = self.stub.Complete(chat_pb2.CompleteRequest(), metadata=metadata, timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await answer
        return raised.value


@pytest.fixture
async def surfaces() -> AsyncIterator[Surfaces]:
    service = Failing()
    provider = NoOpTracerProvider()
    edge = Edge(
        Policy([chat_pb2.DESCRIPTOR.services_by_name["ChatService"]]), lambda: KeyRing(TOKEN), Recorder(), Tracing(provider)
    )
    registry = HandlerRegistry([edge.wrap])
    target: Any = registry
    chat_pb2_grpc.add_ChatServiceServicer_to_server(service, target)  # type: ignore[arg-type]  # it has what is called
    server = GrpcServer(registry, ServerSettings(address="127.0.0.1:0", drain_seconds=0))
    port = await server.start()
    inprocess = InProcessChannel(registry)
    telemetry = HttpTelemetry(provider, HttpMetrics(CollectorRegistry()))
    bridge = build(inprocess, BridgeSettings(HttpSettings("127.0.0.1", 0, drain_seconds=0), "0"), telemetry)
    url = f"http://127.0.0.1:{await bridge.start()}"
    try:
        async with (
            httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN}", "X-Request-Id": "my-id"}) as rest,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield Surfaces(service, rest, chat_pb2_grpc.ChatServiceStub(channel))
    finally:
        await bridge.stop()
        await inprocess.close()
        await server.stop()


def kind_of(name: str) -> ErrorKind.ValueType:
    return ErrorKind.Value(f"ERROR_KIND_{name.upper()}")


def detail(error: grpc.aio.AioRpcError, message: Any) -> Any:
    """Returns a detail of a status; None if it has none of this type."""
    status = rpc_status.from_call(error)
    assert status is not None
    for packed in status.details:
        if packed.Unpack(message):
            return message
    return None


def test_the_matrix_has_every_kind() -> None:
    assert {f"ERROR_KIND_{name.upper()}" for name in MATRIX} == set(ErrorKind.keys()) - {"ERROR_KIND_UNSPECIFIED"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", MATRIX)
async def test_a_kind_is_what_the_matrix_says_on_both_surfaces(surfaces: Surfaces, name: str, stream: bool) -> None:
    status, code, openai_type, openai_code = MATRIX[name]
    surfaces.service.error = GatewayError(kind_of(name), "It went wrong. Do that.", param="a.b", provider="acme", model="m-1")

    response = await surfaces.over_rest(stream=stream)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-Id"] == "my-id"
    assert ("Retry-After" in response.headers) == (status in {429, 503})
    error = {"message": "It went wrong. Do that.", "type": openai_type, "param": "a.b", "code": openai_code}
    assert response.json() == {"error": error, "error_kind": name}

    failed = await surfaces.over_grpc(stream=stream)
    assert (failed.code().name, failed.details()) == (code, "It went wrong. Do that.")
    info = detail(failed, error_details_pb2.ErrorInfo())
    assert (info.reason, info.domain) == (name.upper(), "twinspan")
    assert dict(info.metadata) == {"provider": "acme", "model": "m-1", "request_id": "my-id"}
    assert detail(failed, error_details_pb2.BadRequest()).field_violations[0].field == "a.b"
    assert (detail(failed, error_details_pb2.QuotaFailure()) is not None) == (name in {"quota_exhausted", "budget_exceeded"})
    assert dict(failed.trailing_metadata() or ())["x-request-id"] == "my-id"


async def test_a_wait_is_told_on_both_surfaces(surfaces: Surfaces) -> None:
    surfaces.service.error = GatewayError(kind_of("rate_limited"), "Wait.", retry_after=2.5)
    assert (await surfaces.over_rest(stream=False)).headers["Retry-After"] == "3"
    assert detail(await surfaces.over_grpc(stream=False), error_details_pb2.RetryInfo()).retry_delay.ToMilliseconds() == 2500


async def test_a_providers_own_error_keeps_its_status_and_words(surfaces: Surfaces) -> None:
    facts = UpstreamFacts(422, "their_type", "their_param", "their_code")
    surfaces.service.error = GatewayError(kind_of("invalid_request"), "Their message.", upstream=facts)
    response = await surfaces.over_rest(stream=True)
    assert response.status_code == 422
    expected = {"message": "Their message.", "type": "their_type", "param": "their_param", "code": "their_code"}
    assert response.json()["error"] == expected
    info = detail(await surfaces.over_grpc(stream=True), error_details_pb2.ErrorInfo())
    told = {key: info.metadata[key] for key in ("http_status", "upstream_type", "upstream_param", "upstream_code")}
    assert list(told.values()) == ["422", "their_type", "their_param", "their_code"]


async def test_what_nobody_foresaw_is_an_internal_error_that_says_nothing(
    surfaces: Surfaces, caplog: pytest.LogCaptureFixture
) -> None:
    surfaces.service.error = RuntimeError("the inside shows")
    response = await surfaces.over_rest(stream=False)
    assert (response.status_code, response.json()["error_kind"]) == (500, "internal_error")
    failed = await surfaces.over_grpc(stream=False)
    assert failed.code() is grpc.StatusCode.INTERNAL
    assert "inside shows" not in response.text + (failed.details() or "")
    assert caplog.text.count("RuntimeError: the inside shows") == 2
