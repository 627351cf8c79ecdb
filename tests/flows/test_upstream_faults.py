"""What a provider may do wrong, and what the client of either surface is told: never a traceback, a hang, or a clean stop."""

import asyncio
import gc
import gzip
import json
from dataclasses import dataclass
from typing import Any

import pytest
from httpx import AsyncClient
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from tests.flows.running import Running, configuration, running, running_over
from tests.flows.test_parity import HELLO, over_rest, over_the_inprocess_channel, over_the_network
from tests.flows.upstream import Upstream, chunk, hangs, streams
from tests.gateway.providers.wire import CHUNKED, CLOSE, RESET, Script, Wire, head, sockets, whole
from tests.gateway.providers.wire import chunk as wire_chunk

SURFACES = (over_rest, over_the_inprocess_channel, over_the_network)
LIMITS = {"first_token_timeout_seconds": 0.2, "stream_idle_timeout_seconds": 0.2}
EVENT = b"data: " + json.dumps(chunk({"content": "Hi"})).encode() + b"\n\n"


@dataclass(frozen=True)
class Fault:
    """What a provider sends, and the kind of error that it is."""

    name: str
    script: Script
    kind: str
    answered: bool | None = False
    """Whether something of the answer reaches the client before the error; None if that depends on how its bytes arrive."""


FAULTS = [
    Fault("hangs up at once", (CLOSE,), "network_error"),
    Fault("resets the connection", (RESET,), "network_error"),
    Fault("never answers", (), "provider_timeout"),
    Fault("answers in no HTTP", (b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE), "network_error"),
    Fault("stops in the middle of the headers", (b"HTTP/1.1 200 OK\r\nContent-Ty", CLOSE), "network_error"),
    Fault("sends headers and no more", (CHUNKED,), "provider_timeout"),
    Fault("sends no event at all", (CHUNKED, b"0\r\n\r\n"), "provider_error"),
    Fault("breaks off after an event", (CHUNKED, wire_chunk(EVENT), CLOSE), "network_error", answered=True),
    Fault("falls silent after an event", (CHUNKED, wire_chunk(EVENT)), "provider_timeout", answered=True),
    Fault("sends a chunk that is no chunk", (CHUNKED, wire_chunk(EVENT), b"zz\r\n"), "network_error", answered=None),
    Fault("sends what is no JSON", (CHUNKED, wire_chunk(EVENT), wire_chunk(b"data: oops\n\n")), "provider_error", answered=True),
    Fault("sends what is no gzip", (whole(b"oops", content_encoding="gzip", content_type="text/event-stream"),), "provider_error"),
    Fault(
        "cuts its gzip off",
        (whole(gzip.compress(EVENT)[:-12], content_encoding="gzip", content_type="text/event-stream"),),
        "provider_error",
    ),
    Fault("answers 500 with a page", (whole(b"<html>oops</html>", "500 Oops", content_type="text/html"),), "provider_error"),
    Fault(
        "sends fewer bytes than it said", (head(content_length=500, content_type="text/html"), b"<html>", CLOSE), "network_error"
    ),
    Fault("redirects", (whole(b"", "302 Found", location="http://127.0.0.1:1/"),), "provider_error"),
]


@pytest.mark.parametrize("ask", SURFACES, ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_provider_that_fails_is_an_error_of_its_kind(fault: Fault, ask: Any) -> None:
    async with Wire() as wire:
        wire.plays(fault.script)
        async with running(configuration(f"http://127.0.0.1:{wire.port}/v1", governance=LIMITS)) as twinspan:
            outcome = await ask(twinspan, HELLO, stream=True)
            assert outcome.error == fault.kind, outcome
            assert fault.answered in {None, bool(outcome.answer)}
            assert "acme" in outcome.message
            assert outcome.facts["x-twinspan-attempts"] == "1"
            await twinspan.spans.trees()
            assert twinspan.complaints() == []
        async with asyncio.timeout(5):
            for peer in wire.peers:
                await peer.gone.wait()


@pytest.mark.parametrize("ask", SURFACES, ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_provider_that_refuses_the_connection_is_a_network_error(ask: Any, stream: bool) -> None:
    async with running(configuration("http://127.0.0.1:1/v1")) as twinspan:
        outcome = await ask(twinspan, HELLO, stream)
        assert outcome.error == "network_error"


async def test_a_client_that_hangs_up_closes_the_connection_to_the_provider(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(streams(chunk({"content": "Hi"}), asyncio.Event()))
    async with twinspan.rest.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as response:
        await anext(response.aiter_bytes())
    await gone(upstream)


async def test_a_client_that_hangs_up_before_the_answer_closes_it_too(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(hangs())
    under_way = asyncio.ensure_future(twinspan.chat({**HELLO, "stream": False}))
    await upstream.arrived()
    under_way.cancel()
    await gone(upstream)


@pytest.mark.parametrize("surface", ["inprocess", "network"])
async def test_a_cancelled_rpc_closes_the_connection_to_the_provider(twinspan: Running, upstream: Upstream, surface: str) -> None:
    upstream.plays(streams(chunk({"content": "Hi"}), asyncio.Event()))
    chat = chat_pb2.ChatRequest(model="model-1", messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])
    call = ChatServiceStub(getattr(twinspan, surface)).Stream(chat_pb2.StreamRequest(chat=chat), metadata=twinspan.metadata)
    assert (await call.read()).events
    call.cancel()
    await gone(upstream)


async def gone(upstream: Upstream) -> None:
    async with asyncio.timeout(1):
        await upstream.requests[0].gone.wait()


async def test_many_failed_requests_leave_no_sockets_and_no_tasks(upstream: Upstream) -> None:
    async with running_over(upstream, governance=LIMITS) as twinspan:
        upstream.plays(streams(chunk({"content": "Hi"}), ConnectionError()))
        await twinspan.chat({**HELLO, "stream": True})
        await twinspan.spans.trees()
        await twinspan.rest.aclose()
        before = await at_rest()
        async with AsyncClient(base_url=twinspan.url, headers=twinspan.rest.headers) as client:
            body = {**HELLO, "stream": True}
            await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(20)))
        await twinspan.spans.trees(20)
        assert await at_rest() == before


async def at_rest() -> tuple[int, int]:
    """Returns how many tasks and sockets there are once nothing is about to end."""
    for _ in range(10):
        await asyncio.sleep(0)
    gc.collect()
    return len(asyncio.all_tasks()), sockets()


@pytest.mark.parametrize(
    ("wanted", "blamed"), [({}, 1), ({"X-Twinspan-Timeout-Ms": "200"}, 0)], ids=["of its own", "that the client cut short"]
)
async def test_a_provider_that_takes_all_the_time_there_is_is_to_blame_only_if_that_was_all_of_its_own(
    upstream: Upstream, wanted: dict[str, str], blamed: int
) -> None:
    upstream.plays(hangs())
    agents = {"careful": {"models": ["model-1", "spare"]}}
    providers = {
        "acme": {"base_url": upstream.base_url, "api_key": "secret-of-the-provider", "models": ["model-1", "spare"]},
    }
    governance = {"upstream_timeout_seconds": 0.4}
    async with running(configuration("", providers=providers, agents=agents, governance=governance)) as twinspan:
        response = await twinspan.chat({**HELLO, "model": "careful", "stream": False}, **wanted)
        assert (response.status_code, response.json()["error_kind"]) == (504, "deadline_exceeded")
        assert response.headers["X-Twinspan-Attempts"] == "1"
        breakers = (await twinspan.rest.get("/statsz")).json()["breakers"]
        assert [(breaker["model"], breaker["failures"]) for breaker in breakers] == [("model-1", 1)][:blamed]
        assert len(upstream.requests) == 1
