"""The counts of a gateway: once over either surface, and watched over gRPC."""

import asyncio
from typing import Any

import grpc
import orjson
import pytest
from twinspan.v1 import admin_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from bridge import errors
from bridge.transcoding import as_json
from tests.flows.running import Running, configuration, running
from tests.flows.upstream import MODEL, Upstream, hangs, says, whole

HELLO = {"model": MODEL, "stream": False, "messages": [{"role": "user", "content": "Hello"}]}
MOVING = ("uptime_seconds", "process", "providers")
READER, USER = "ts-reader-of-the-tests-1", "ts-user-of-the-tests-12"


def still(stats: dict[str, Any]) -> dict[str, Any]:
    """Returns what does not change from one look to the next."""
    return {name: value for name, value in stats.items() if name not in MOVING}


async def test_both_surfaces_show_the_same_counts_without_a_credential(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(says("Hi."), whole({"error": {"message": "Oops."}}, 500), says("Hi."))
    for _ in range(3):
        await twinspan.chat(HELLO)
    del twinspan.rest.headers["Authorization"]
    over_rest = (await twinspan.rest.get("/statsz")).json()
    assert over_rest["totals"]["requests"] == 3
    assert over_rest["totals"]["input_tokens"] == 18
    assert over_rest["errors"] == {"provider_error": 1}
    (provider,) = over_rest["providers"]
    assert (provider["provider"], provider["state"], provider["requests"], provider["errors"]) == ("acme", "degraded", 3, 1)
    assert (provider["last_error"], provider["recent_error_rate"]) == ("provider_error", pytest.approx(1 / 3))
    assert provider["last_error_seconds_ago"] >= provider["last_success_seconds_ago"] >= 0
    assert over_rest["billing"]["unpriced_requests"] == 2
    for channel in (twinspan.network, twinspan.inprocess):
        over_grpc = as_json(await AdminServiceStub(channel).GetStats(admin_pb2.GetStatsRequest()))
        assert still(orjson.loads(orjson.dumps(over_grpc))) == still(over_rest)


async def test_the_process_that_serves_is_described(twinspan: Running) -> None:
    process = (await twinspan.rest.get("/statsz")).json()["process"]
    assert process["resident_memory_bytes"] > 10_000_000
    assert process["open_files"] > 3
    assert process["asyncio_tasks"] > 1
    assert process["event_loop_lag_p99_seconds"] >= process["event_loop_lag_p50_seconds"] >= 0


async def test_requests_under_way_are_those_that_use_models(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(hangs())
    asked = [
        asyncio.ensure_future(twinspan.chat(HELLO)),
        asyncio.ensure_future(twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": "Hello"})),
        asyncio.ensure_future(twinspan.rest.get("/proxy/acme/v1/models")),
    ]
    await upstream.arrived(3)
    assert (await twinspan.rest.get("/statsz")).json()["inflight_requests"] == 3
    for request in asked:
        request.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_whoever_watches_sees_counts_rise(twinspan: Running, channel: str) -> None:
    request = admin_pb2.WatchStatsRequest(interval_seconds=0.1)
    call = AdminServiceStub(getattr(twinspan, channel)).WatchStats(request, metadata=twinspan.metadata)
    async with asyncio.timeout(5):
        first: Any = await call.read()
        assert first.stats.totals.requests == 0
        await twinspan.chat(HELLO)
        while True:
            message: Any = await call.read()
            if message.stats.totals.requests:
                break
    assert message.stats.version == first.stats.version
    call.cancel()


async def test_a_watch_ends_with_the_gateway(upstream: Upstream) -> None:
    async with running(configuration(upstream.base_url)) as twinspan:
        call = AdminServiceStub(twinspan.network).WatchStats(admin_pb2.WatchStatsRequest(), metadata=twinspan.metadata)
        assert await call.read()
        drained = asyncio.ensure_future(twinspan.gateway.core.drain())
        async with asyncio.timeout(5):
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
            await drained


@pytest.mark.parametrize("seconds", [0, 0.09, 60.1, -1, float("nan"), float("inf")])
async def test_an_interval_is_neither_too_short_nor_too_long(twinspan: Running, seconds: float) -> None:
    request = admin_pb2.WatchStatsRequest(interval_seconds=seconds)
    call = AdminServiceStub(twinspan.network).WatchStats(request, metadata=twinspan.metadata)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    failure = errors.of_rpc(raised.value)
    assert (failure.kind_name, failure.param) == ("invalid_request", "interval_seconds")


async def test_to_watch_needs_the_right_to_read(upstream: Upstream) -> None:
    keys = [
        {"name": "reader", "token": READER, "roles": ["read-only"]},
        {"name": "user", "token": USER, "roles": ["user"], "allowed_endpoints": ["POST /v1/chat/completions"]},
    ]
    expected = {None: "auth_failed", "ts-nobody-of-the-tests-12": "auth_failed", USER: "permission_denied", READER: None}
    found: dict[str | None, str | None] = {}
    async with running(configuration(upstream.base_url, api_keys=keys)) as twinspan:
        for token in expected:
            metadata = (("authorization", f"Bearer {token}"),) if token else ()
            call = AdminServiceStub(twinspan.network).WatchStats(admin_pb2.WatchStatsRequest(), metadata=metadata)
            try:
                await call.read()
                found[token] = None
            except grpc.aio.AioRpcError as error:
                found[token] = errors.of_rpc(error).kind_name
            call.cancel()
    assert found == expected
