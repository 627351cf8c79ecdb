"""Budgets of keys and agents, on both surfaces: what is reserved, what is settled, and what outlives a process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running
from tests.flows.upstream import MODEL, Upstream, chunk, hangs, says, streams, whole
from tests.servers import valkey

POOR, RICH = "ts-a-key-with-a-small-budget", "ts-a-key-without-any-budget"
PRICES = {"input_cost_per_1m": 0, "output_cost_per_1m": 1000}
"""An answer of the mock has 3 tokens, so that it costs $0.003: what is reserved if the request allows for 3."""

TEN = 0.03


def sections_of(upstream: Upstream, tmp_path: Path, **sections: Any) -> dict[str, Any]:
    return configuration(
        upstream.base_url,
        providers={
            "acme": {
                "api_key": "upstream-secret-key",
                "base_url": upstream.base_url,
                "models": [MODEL],
                "model_info": {MODEL: PRICES},
            }
        },
        **{
            "api_keys": [{"name": "poor", "token": POOR, "budget_usd": TEN}, {"name": "rich", "token": RICH}],
            "agents": {"frugal": {"models": [MODEL], "budget_limit_usd": TEN, "budget_period": "month"}},
            "files": {"dir": str(tmp_path / "files")},
            **sections,
        },
    )


@pytest.fixture
async def twinspan(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Running]:
    upstream.plays(says("Hello."))
    async with running(sections_of(upstream, tmp_path)) as started:
        yield started
        assert started.complaints() == []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with valkey() as started:
        yield f"valkey://127.0.0.1:{started.port}"


async def ask(twinspan: Running, token: str = POOR, model: str = MODEL, tokens: int = 3, **fields: Any) -> Any:
    body = {"model": model, "stream": False, "max_completion_tokens": tokens, "messages": [{"role": "user", "content": "Hello"}]}
    return await twinspan.rest.post(
        "/v1/chat/completions", json={**body, **fields}, headers={"Authorization": f"Bearer {token}"}, timeout=20
    )


async def call(twinspan: Running, channel: grpc.aio.Channel, token: str = POOR, model: str = MODEL) -> str:
    """Asks over gRPC and returns the kind of the error, or that it is fine."""
    message = content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")
    chat = chat_pb2.ChatRequest(model=model, messages=[message], max_completion_tokens=3)
    try:
        await ChatServiceStub(channel).Complete(
            chat_pb2.CompleteRequest(chat=chat), metadata=(("authorization", f"Bearer {token}"),), timeout=20
        )
    except grpc.aio.AioRpcError as error:
        return errors.of_rpc(error).kind_name
    return "fine"


async def passed(twinspan: Running, count: int, **asked: Any) -> int:
    """Asks one after the other over REST, and returns how many were answered."""
    return [(await ask(twinspan, **asked)).status_code for _ in range(count)].count(200)


async def settled(twinspan: Running) -> None:
    """Waits until no request is under way."""
    async with asyncio.timeout(5):
        while (await twinspan.rest.get("/statsz")).json()["inflight_requests"]:
            continue


@pytest.mark.parametrize(("token", "model"), [(POOR, MODEL), (RICH, "frugal")], ids=["of a key", "of an agent"])
async def test_a_budget_for_ten_requests_lets_ten_through_of_many_at_once_and_not_one_more(
    twinspan: Running, token: str, model: str
) -> None:
    channels = [twinspan.network, twinspan.inprocess]
    came = await asyncio.gather(*(call(twinspan, channels[n % 2], token, model) for n in range(100)))
    assert (came.count("fine"), set(came)) == (10, {"fine", "budget_exceeded"})
    refused = await ask(twinspan, token, model)
    error = refused.json()
    assert (refused.status_code, error["error_kind"], error["error"]["code"]) == (429, "budget_exceeded", "budget_exceeded")
    assert "$0.000000 left of its budget of $0.030000" in error["error"]["message"]
    assert (int(refused.headers["Retry-After"]) > 1) is (token == RICH)  # a budget for all time is never renewed
    assert refused.headers["X-Should-Retry"] == "false"


async def test_gateways_that_share_a_server_share_budgets(upstream: Upstream, tmp_path: Path, server: str) -> None:
    upstream.plays(says("Hello."))
    async with AsyncExitStack() as stack:
        sections = sections_of(upstream, tmp_path, state={"url": server})
        gateways = [await stack.enter_async_context(running(sections)) for _ in range(3)]
        came = await asyncio.gather(*(call(one := gateways[n % 3], one.network) for n in range(90)))
        assert (came.count("fine"), set(came)) == (10, {"fine", "budget_exceeded"})


async def test_what_was_reserved_and_not_spent_is_there_again(twinspan: Running) -> None:
    assert (await ask(twinspan, tokens=30)).status_code == 200
    assert await passed(twinspan, 12) == 9


async def test_a_request_that_may_cost_more_than_is_left_is_refused(twinspan: Running, upstream: Upstream) -> None:
    assert (await ask(twinspan, tokens=31)).json()["error_kind"] == "budget_exceeded"
    assert upstream.requests == []


async def test_what_failed_and_cost_nothing_is_not_charged(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(whole({"error": {"message": "Oops."}}, 400))
    for _ in range(20):
        assert (await ask(twinspan)).status_code == 400
    upstream.plays(says("Hello."))
    assert await passed(twinspan, 12) == 10


async def test_an_attempt_without_a_price_takes_nothing_from_what_the_next_one_costs(upstream: Upstream, tmp_path: Path) -> None:
    """The first target consumes something and says nothing; the second one answers for $0.003."""
    sections = sections_of(upstream, tmp_path)
    sections["providers"]["acme"]["models"] = ["unpriced", MODEL]
    sections["agents"]["both"] = {"models": ["unpriced", MODEL], "failure_threshold": 9}
    silent = streams(
        {**chunk({}), "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}}, "[DONE]"
    )
    async with running(sections) as twinspan:
        for _ in range(4):
            upstream.plays(silent, says("Hello."))
            assert "Hello." in (await ask(twinspan, model="both", stream=True)).text
        await settled(twinspan)
        upstream.plays(says("Hello."))
        assert await passed(twinspan, 12) == 6


async def test_of_a_stream_whose_client_left_before_its_usage_came_what_was_reserved_is_charged(
    twinspan: Running, upstream: Upstream
) -> None:
    upstream.plays(streams(chunk({"content": "Hel"}), asyncio.Event()))
    async with twinspan.openai(POOR) as sdk:
        stream = await sdk.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=27, stream=True
        )
        await anext(aiter(stream))
        await stream.close()
    upstream.plays(says("Hello."))
    await settled(twinspan)
    assert await passed(twinspan, 3) == 1


async def test_of_a_request_whose_client_left_before_an_answer_nothing_is_charged(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(hangs())
    asked = asyncio.create_task(ask(twinspan, tokens=30))
    await upstream.arrived()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    upstream.plays(says("Hello."))
    await settled(twinspan)
    assert await passed(twinspan, 12) == 10


async def test_what_was_spent_outlives_the_process(upstream: Upstream, tmp_path: Path) -> None:
    upstream.plays(says("Hello."))
    sections = sections_of(upstream, tmp_path)
    async with running(sections) as twinspan:
        assert await passed(twinspan, 6) == 6
    async with running(sections) as twinspan:
        assert await passed(twinspan, 6) == 4
    async with running(sections) as twinspan:
        assert await passed(twinspan, 3) == 0


async def test_the_sdk_takes_it_for_a_rate_limit_that_is_not_worth_a_retry(twinspan: Running) -> None:
    await passed(twinspan, 10)
    async with twinspan.openai(POOR) as sdk:
        with pytest.raises(openai.RateLimitError) as raised:
            await sdk.with_options(max_retries=3).chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=3
            )
    assert raised.value.code == "budget_exceeded"
