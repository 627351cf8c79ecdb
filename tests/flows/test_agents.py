"""Agents: one name for several targets, and an answer as long as one of them has one."""

import asyncio
from typing import Any

import grpc
import pytest
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from tests.flows.running import TOKEN, Running, configuration, running
from tests.flows.upstream import Upstream, hangs, says, whole

LISTEN = {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "log_level": "warning"}
BUSY = whole({"error": {"message": "Slow down.", "type": "rate_limit_error"}}, 429)
BROKEN = whole({"error": {"message": "Oops."}}, 500)


def ask(model: str = "smart", **fields: Any) -> dict[str, Any]:
    return {"model": model, "stream": False, "messages": [{"role": "user", "content": "Hello"}], **fields}


class Two:
    """A gateway over two providers, each with a model of its own, and an agent over both."""

    def __init__(self, first: Upstream, second: Upstream, **agent: Any) -> None:
        self.first, self.second = first, second
        self.sections = configuration(
            first.base_url,
            providers={
                "first": {"base_url": first.base_url, "api_key": "key-of-the-first", "models": ["one"]},
                "second": {"base_url": second.base_url, "api_key": "key-of-the-second", "models": ["two", "shared/model"]},
            },
            agents={"smart": {"strategy": "fallback", "models": ["one", {"provider": "second", "model": "two"}], **agent}},
        )


@pytest.fixture
async def second() -> Any:
    async with Upstream() as started:
        yield started


async def answered_by(twinspan: Running, body: dict[str, Any]) -> tuple[str, str]:
    response = await twinspan.chat(body)
    assert response.status_code == 200, response.text
    return response.headers["X-Twinspan-Provider"], response.headers["X-Twinspan-Attempts"]


async def test_a_fallback_agent_asks_the_next_target_and_the_client_sees_one_answer(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(BROKEN)
    second.plays(says("From the second."))
    async with running(Two(upstream, second).sections) as twinspan:
        response = await twinspan.chat(ask())
        assert response.json()["choices"][0]["message"]["content"] == "From the second."
        assert (response.headers["X-Twinspan-Provider"], response.headers["X-Twinspan-Attempts"]) == ("second", "2")
    assert [request.body["model"] for request in (*upstream.requests, *second.requests)] == ["one", "two"]
    assert upstream.requests[0].headers["Authorization"] == "Bearer key-of-the-first"
    assert second.requests[0].headers["Authorization"] == "Bearer key-of-the-second"


async def test_a_target_that_keeps_failing_is_passed_over_until_its_cooldown_ends(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(BROKEN)
    async with running(Two(upstream, second, failure_threshold=2, cooldown_seconds=3600).sections) as twinspan:
        for _ in range(4):
            await answered_by(twinspan, ask())
        assert len(upstream.requests) == 2
        stats = (await twinspan.rest.get("/statsz")).json()
        (breaker,) = stats["breakers"]
        told = (breaker["agent"], breaker["provider"], breaker["failures"], breaker["state"])
        assert told == ("smart", "first", 2, "open")


async def test_when_every_target_fails_the_error_names_each_attempt(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(BUSY)
    second.plays(BROKEN)
    async with running(Two(upstream, second).sections) as twinspan:
        response = await twinspan.chat(ask())
        assert response.status_code == 503
        answer = response.json()
        assert answer["error_kind"] == "targets_exhausted"
        assert "first/one: rate_limited" in answer["error"]["message"]
        assert "second/two: provider_error" in answer["error"]["message"]
        assert response.headers["Retry-After"]
        assert response.headers["X-Twinspan-Attempts"] == "2"


async def test_a_mistake_of_the_clients_own_is_not_tried_elsewhere_with_one_target(upstream: Upstream) -> None:
    upstream.plays(whole({"error": {"message": "No such parameter.", "param": "foo"}}, 400))
    async with running(configuration(upstream.base_url)) as twinspan:
        response = await twinspan.chat(ask("model-1"))
        assert (response.status_code, response.json()["error"]["param"]) == (400, "foo")
    assert len(upstream.requests) == 1


async def test_round_robin_begins_one_target_further_each_time(upstream: Upstream, second: Upstream) -> None:
    async with running(Two(upstream, second, strategy="round-robin").sections) as twinspan:
        providers = [(await answered_by(twinspan, ask()))[0] for _ in range(4)]
    assert providers == ["first", "second", "first", "second"]


async def test_a_target_is_tried_again_as_often_as_the_agent_says(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(whole({"error": {"message": "Oops."}}, 503, Retry_After="0"), says("At last."))
    async with running(Two(upstream, second, max_retries=1).sections) as twinspan:
        assert await answered_by(twinspan, ask()) == ("first", "2")


@pytest.mark.parametrize(
    ("forced", "messages"),
    [
        (False, [("system", "Be brief."), ("system", "Be kind."), ("user", "Hello")]),
        (True, [("system", "Be brief."), ("user", "Hello")]),
    ],
    ids=["before the client's own", "in place of the client's own"],
)
async def test_an_agents_system_prompt_comes_first(
    upstream: Upstream, second: Upstream, forced: bool, messages: list[tuple[str, str]]
) -> None:
    own = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    async with running(Two(upstream, second, system_prompt="Be brief.", force_system_prompt=forced).sections) as twinspan:
        await answered_by(twinspan, ask(messages=own))
    sent = [(message["role"], message["content"]) for message in upstream.requests[0].body["messages"]]
    assert sent == messages


@pytest.mark.parametrize(("name", "provider"), [("two", "second"), ("second/two", "second"), ("shared/model", "second")])
async def test_a_model_is_found_by_its_name_and_by_its_providers(
    upstream: Upstream, second: Upstream, name: str, provider: str
) -> None:
    async with running(Two(upstream, second).sections) as twinspan:
        assert (await answered_by(twinspan, ask(name)))[0] == provider
    assert second.requests[0].body["model"] == name.removeprefix("second/")


async def test_the_catalogue_lists_agents_first_and_what_the_key_may_use(upstream: Upstream, second: Upstream) -> None:
    sections = Two(upstream, second).sections
    sections["api_keys"] = [
        {"name": "narrow", "token": "ts-the-narrow-key-of-tests", "roles": ["user"], "allowed_agents": ["smart"]}
    ]
    async with running(sections) as twinspan:
        listed = (await twinspan.rest.get("/v1/models")).json()
        assert [(model["id"], model["owned_by"]) for model in listed["data"]] == [
            ("smart", "twinspan"),
            ("one", "first"),
            ("two", "second"),
            ("shared/model", "second"),
        ]
        narrow = {"Authorization": "Bearer ts-the-narrow-key-of-tests"}
        assert [model["id"] for model in (await twinspan.rest.get("/v1/models", headers=narrow)).json()["data"]] == ["smart"]
        assert (await twinspan.rest.get("/v1/models/shared/model")).json()["id"] == "shared/model"
        assert (await twinspan.rest.get("/v1/models/shared/model", headers=narrow)).status_code == 404
        denied = await twinspan.rest.post("/v1/chat/completions", json=ask("one"), headers=narrow)
        assert (denied.status_code, denied.json()["error_kind"]) == (403, "permission_denied")
        assert (await twinspan.rest.post("/v1/chat/completions", json=ask(), headers=narrow)).status_code == 200


async def test_keys_reach_what_their_roles_say(upstream: Upstream) -> None:
    keys = [
        {"name": "reader", "token": "ts-the-reading-key-of-tests", "roles": ["read-only"]},
        {"name": "late", "token": "ts-the-expired-key-of-tests", "roles": ["user"], "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "off", "token": "ts-the-disabled-key-of-tests", "roles": ["user"], "enabled": False},
    ]
    async with running(configuration(upstream.base_url, api_keys=keys)) as twinspan:
        for token, models, chat in (
            (TOKEN, 200, 200),
            ("ts-the-reading-key-of-tests", 200, 403),
            ("ts-the-expired-key-of-tests", 403, 403),
            ("ts-the-disabled-key-of-tests", 403, 403),
            ("ts-nobody-knows-this-key", 401, 401),
        ):
            headers = {"Authorization": f"Bearer {token}"}
            assert (await twinspan.rest.get("/v1/models", headers=headers)).status_code == models, token
            body = ask("model-1")
            assert (await twinspan.rest.post("/v1/chat/completions", json=body, headers=headers)).status_code == chat, token


async def test_the_callers_deadline_is_shared_by_all_attempts(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(hangs())
    second.plays(hangs())
    async with running(Two(upstream, second).sections) as twinspan:
        chat = chat_pb2.ChatRequest(model="smart", messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])
        call = ChatServiceStub(twinspan.network).Complete(
            chat_pb2.CompleteRequest(chat=chat), metadata=twinspan.metadata, timeout=0.3
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            await upstream.requests[0].gone.wait()
