"""What agents do beyond falling back, and what callers may change for one request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import openai
import pytest
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running
from tests.flows.test_agents import BROKEN, ask
from tests.flows.upstream import Upstream, chunk, hangs, says, streams, whole

BOUND = "ts-a-key-that-is-bound-to-one"
WAIT = whole({"error": {"message": "Slow down.", "type": "rate_limit_error"}}, 429, Retry_After="30")


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    async with Upstream() as started:
        yield started


def sections(first: Upstream, second: Upstream, agent: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return configuration(
        first.base_url,
        **{
            "providers": {
                "first": {"base_url": first.base_url, "api_key": "key-of-the-first", "models": ["one", "shared"]},
                "second": {"base_url": second.base_url, "api_key": "key-of-the-second", "models": ["two", "shared"]},
            },
            "agents": {"smart": {"models": ["one", "two"], **(agent or {})}, "plain": {"models": ["two"]}},
            "api_keys": [{"name": "bound", "token": BOUND, "allowed_agents": ["one", "smart"]}],
            **more,
        },
    )


async def rest(twinspan: Running, body: dict[str, Any], **headers: str) -> tuple[int, str, str]:
    """Returns the status, who answered, and the kind of the error."""
    answer = await twinspan.chat(body, **{name.replace("_", "-"): value for name, value in headers.items()})
    return answer.status_code, answer.headers.get("X-Twinspan-Provider", ""), answer.json().get("error_kind", "")


async def rpc(twinspan: Running, model: str, channel: grpc.aio.Channel, **metadata: str) -> tuple[str, str]:
    """Returns who answered, or the kind of the error."""
    chat = chat_pb2.ChatRequest(model=model, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])
    more = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
    under_way = ChatServiceStub(channel).Complete(
        chat_pb2.CompleteRequest(chat=chat), metadata=(*twinspan.metadata, *more), timeout=5
    )
    try:
        await under_way
    except grpc.aio.AioRpcError as error:
        return "", errors.of_rpc(error).kind_name
    return str(dict(await under_way.trailing_metadata())["x-twinspan-provider"]), ""


# Overrides.


@pytest.mark.parametrize(
    ("model", "header", "value", "provider", "kind"),
    [
        ("one", "X_Twinspan_Agent", "plain", "second", ""),
        ("no-such-model", "X_Twinspan_Agent", "smart", "first", ""),
        ("one", "X_Twinspan_Agent", "nobody", "", "invalid_request"),
        ("smart", "X_Twinspan_Provider", "second", "second", ""),
        ("shared", "X_Twinspan_Provider", "second", "second", ""),
        ("one", "X_Twinspan_Provider", "second", "", "model_not_found"),
        ("plain", "X_Twinspan_Provider", "first", "", "invalid_request"),
        ("one", "X_Twinspan_Provider", "nobody", "", "invalid_request"),
        ("one", "X_Twinspan_Timeout_Ms", "30000", "first", ""),
        ("one", "X_Twinspan_Timeout_Ms", "soon", "", "invalid_request"),
        ("one", "X_Twinspan_Timeout_Ms", "0", "", "invalid_request"),
        ("one", "X_Twinspan_Timeout_Ms", "86400001", "", "invalid_request"),
    ],
)
async def test_a_header_or_metadata_overrides_where_a_request_goes(
    upstream: Upstream, second: Upstream, model: str, header: str, value: str, provider: str, kind: str
) -> None:
    upstream.plays(says("First."))
    second.plays(says("Second."))
    async with running(sections(upstream, second)) as twinspan:
        status, answered, error = await rest(twinspan, ask(model), **{header: value})
        assert (answered, error, status == 200) == (provider, kind, not kind)
        for channel in (twinspan.network, twinspan.inprocess):
            assert await rpc(twinspan, model, channel, **{header.lower(): value}) == (provider, kind)


async def test_a_time_that_a_caller_sets_for_itself_ends_the_request(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(hangs())
    async with running(sections(upstream, second)) as twinspan:
        assert await rest(twinspan, ask("one"), X_Twinspan_Timeout_Ms="80") == (504, "", "deadline_exceeded")
        assert await rpc(twinspan, "one", twinspan.network, x_twinspan_timeout_ms="80") == ("", "deadline_exceeded")


async def test_an_override_reaches_nothing_that_the_key_may_not(upstream: Upstream, second: Upstream) -> None:
    bearer = {"Authorization": f"Bearer {BOUND}"}
    async with running(sections(upstream, second)) as twinspan:
        assert (await rest(twinspan, ask("one"), X_Twinspan_Agent="plain", **bearer))[2] == "permission_denied"
        assert (await rest(twinspan, ask("one"), X_Twinspan_Provider="second", **bearer))[0] in (403, 404)
    assert second.requests == []


# Breakers.


@pytest.mark.parametrize("model", ["one", "smart"], ids=["of a model", "of an agent"])
async def test_a_provider_that_asks_to_wait_is_not_asked_again_until_then(upstream: Upstream, second: Upstream, model: str) -> None:
    upstream.plays(WAIT)
    second.plays(says("Second."))
    async with running(sections(upstream, second)) as twinspan:
        for _ in range(3):
            answer = await twinspan.chat(ask(model))
            if model == "one":
                assert (answer.status_code, int(answer.headers["Retry-After"]) > 25) == (429, True)
            else:
                assert answer.headers["X-Twinspan-Provider"] == "second"
        assert len(upstream.requests) == 1
        (breaker,) = (await twinspan.rest.get("/statsz")).json()["breakers"]
        assert (breaker["state"], breaker["last_error"]) == ("open", "rate_limited")
        assert (
            f'twinspan_cb_state{{key="{"smart" if model == "smart" else ""}/first/one"}} 1.0'
            in (await twinspan.rest.get("/metrics")).text
        )


async def test_a_lone_model_that_keeps_failing_is_asked_all_the_same_since_there_is_nothing_else(
    upstream: Upstream, second: Upstream
) -> None:
    upstream.plays(*[BROKEN] * 7, says("At last."))
    async with running(sections(upstream, second)) as twinspan:
        statuses = [(await twinspan.chat(ask("one"))).status_code for _ in range(8)]
    assert statuses == [502] * 7 + [200]


async def test_a_client_that_leaves_is_no_failure_of_its_target(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(streams(chunk({"content": "Hel"}), asyncio.Event()))
    async with running(sections(upstream, second, {"failure_threshold": 1})) as twinspan:
        for _ in range(3):
            async with twinspan.openai() as sdk:
                stream = await sdk.chat.completions.create(
                    model="smart", messages=[{"role": "user", "content": "Hello"}], stream=True
                )
                await anext(aiter(stream))
                await stream.close()
        assert (await twinspan.rest.get("/statsz")).json()["breakers"] == []
        assert len(upstream.requests) == 3


async def test_a_target_whose_breaker_opens_while_another_is_tried_is_not_asked_and_the_error_says_so(
    upstream: Upstream, second: Upstream
) -> None:
    go_on = asyncio.Event()

    async def fails_late(http: Any, request: Any) -> Any:
        await go_on.wait()
        return await BROKEN(http, request)

    upstream.plays(fails_late)
    second.plays(BROKEN)
    async with running(sections(upstream, second, {"failure_threshold": 1})) as twinspan:
        slow = asyncio.create_task(twinspan.chat(ask("smart")))
        await upstream.arrived()
        assert (await rest(twinspan, ask("smart"), X_Twinspan_Provider="second"))[0] == 502
        go_on.set()
        answer = await slow
        assert (answer.status_code, answer.json()["error_kind"]) == (503, "targets_exhausted")
        assert "second/two: not tried. Its breaker is open for another" in answer.json()["error"]["message"]
        assert len(second.requests) == 1


# Sticky conversations.


async def test_a_conversation_stays_with_its_provider_on_both_surfaces_and_moves_when_that_fails(
    upstream: Upstream, second: Upstream
) -> None:
    upstream.plays(says("First."))
    second.plays(says("Second."))
    async with running(sections(upstream, second, {"strategy": "sticky", "failure_threshold": 1})) as twinspan:
        answered: dict[str, set[str]] = {}
        for turn in range(3):
            for number in range(12):
                said = [{"role": "user", "content": f"Conversation {number}"}]
                said += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Go on."}] * turn
                _, provider, _ = await rest(twinspan, ask("smart", messages=said))
                answered.setdefault(f"rest {number}", set()).add(provider)
            for _ in range(2):
                answered.setdefault("rpc", set()).add((await rpc(twinspan, "smart", twinspan.network))[0])
        assert all(len(providers) == 1 for providers in answered.values())
        assert set.union(*answered.values()) == {"first", "second"}
        theirs = next(name for name, providers in answered.items() if name != "rpc" and providers == {"first"})
        upstream.plays(BROKEN)
        said = [{"role": "user", "content": f"Conversation {theirs.removeprefix('rest ')}"}]
        assert [(await rest(twinspan, ask("smart", messages=said)))[1] for _ in range(2)] == ["second", "second"]
        metrics = (await twinspan.rest.get("/metrics")).text
        assert 'twinspan_session_pin_changes_total{reason="failure"} 1.0' in metrics
        assert "twinspan_session_active 13.0" in metrics


# Ceilings.


async def test_a_request_goes_to_a_target_that_it_may_pay_for(upstream: Upstream, second: Upstream) -> None:
    second.plays(says("Second."))
    plain = sections(upstream, second)["providers"]
    providers = {**plain, "first": {**plain["first"], "model_info": {"one": {"input_cost_per_1m": 0, "output_cost_per_1m": 1000}}}}
    governance = {"max_cost_per_request": 0.05}
    async with running(sections(upstream, second, providers=providers, governance=governance)) as twinspan:
        assert (await rest(twinspan, ask("smart", max_completion_tokens=60)))[1] == "second"
        upstream.plays(says("First."))
        assert (await rest(twinspan, ask("smart", max_completion_tokens=40)))[1] == "first"
        async with twinspan.openai() as sdk:
            with pytest.raises(openai.BadRequestError, match=r"About \$0.06") as raised:
                await sdk.chat.completions.create(
                    model="one", messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=60
                )
    assert raised.value.code == "invalid_request"


async def test_a_request_goes_to_a_target_that_it_is_not_too_long_for(upstream: Upstream, second: Upstream) -> None:
    second.plays(says("Second."))
    models = [{"provider": "first", "model": "one", "max_context": 50}, "two"]
    async with running(
        sections(upstream, second, {"models": models}, context={"auto_context_skip": True}, governance={"ratelimit_max_rpm": 0})
    ) as twinspan:
        assert (await rest(twinspan, ask("smart", messages=[{"role": "user", "content": "Hello " * 100}])))[1] == "second"
    assert upstream.requests == []


async def test_a_target_over_its_hosts_limit_is_skipped_and_a_lone_one_is_refused(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(says("First."))
    second.plays(says("Second."))
    plain = sections(upstream, second)["providers"]
    providers = {**plain, "first": {**plain["first"], "ratelimit_max_rpm": 2}}
    async with running(sections(upstream, second, providers=providers)) as twinspan:
        assert [(await rest(twinspan, ask("smart")))[1] for _ in range(3)] == ["first", "first", "second"]
        answer = await twinspan.chat(ask("one"))
        assert (answer.status_code, answer.json()["error_kind"]) == (429, "rate_limited")
        assert int(answer.headers["Retry-After"]) > 1
        assert await rpc(twinspan, "one", twinspan.network) == ("", "rate_limited")
        (breakers,) = ((await twinspan.rest.get("/statsz")).json()["breakers"],)
        assert breakers == []


async def test_an_agents_own_limits_hold_for_all_keys(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(says("First."))
    async with running(sections(upstream, second, {"ratelimit_max_rpm": 2})) as twinspan:
        assert [(await rest(twinspan, ask("smart")))[0] for _ in range(2)] == [200, 200]
        answer = await twinspan.chat(ask("smart"), Authorization=f"Bearer {BOUND}")
        assert "agent 'smart' may have 2 requests a minute" in answer.json()["error"]["message"]
        assert (await rest(twinspan, ask("one")))[0] == 200


# Hedging and shadows.


async def test_a_slow_target_is_hedged_and_the_losers_connection_is_closed(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(says("First."))
    second.plays(says("Second."))
    async with running(sections(upstream, second, {"hedging": True})) as twinspan, AsyncExitStack() as stack:
        sdk = await stack.enter_async_context(twinspan.openai())
        asked: Any = {"model": "smart", "messages": [{"role": "user", "content": "Hello"}]}
        for _ in range(10):  # so many answers are measured before one can be said to be slow
            await sdk.chat.completions.create(**asked)
        upstream.plays(hangs())
        stream = await sdk.chat.completions.create(**asked, stream=True)
        said = [piece.choices[0].delta.content or "" async for piece in stream if piece.choices]
        assert "".join(said) == "Second."
        await asyncio.wait_for(upstream.requests[-1].gone.wait(), 5)
        metrics = (await twinspan.rest.get("/metrics")).text
        assert "twinspan_hedges_total 1.0" in metrics
        assert (await twinspan.rest.get("/statsz")).json()["breakers"] == []
        upstream.plays(hangs())
        second.plays(BROKEN)
        with pytest.raises(openai.APIStatusError):
            await sdk.chat.completions.create(**asked, extra_headers={"X-Twinspan-Timeout-Ms": "300"})
        await asyncio.wait_for(upstream.requests[-1].gone.wait(), 5)
        assert twinspan.complaints() == []


async def test_a_shadow_gets_a_copy_and_its_answer_is_only_measured(upstream: Upstream, second: Upstream) -> None:
    upstream.plays(says("First."))
    second.plays(says("Second."))
    async with running(sections(upstream, second, {"models": ["one"], "shadow": "second/two"})) as twinspan:
        for stream in (False, True):
            async with twinspan.rest.stream("POST", "/v1/chat/completions", json=ask("smart", stream=stream)) as answer:
                text = (await answer.aread()).decode()
                assert ("First." in text, "Second." in text, answer.headers["X-Twinspan-Attempts"]) == (True, False, "1")
        await second.arrived(2)
        async with asyncio.timeout(5):
            while True:
                models = (await twinspan.rest.get("/statsz")).json()["models"]
                shadows = [one["requests"] for one in models if one["agent"] == "smart:shadow"]
                if shadows == [2]:
                    break
        second.plays(BROKEN)
        assert (await rest(twinspan, ask("smart")))[:2] == (200, "first")
    assert [request.body["model"] for request in second.requests[:2]] == ["two", "two"]


# Conversations that are too long.

TOO_LONG = whole(
    {"error": {"message": "This model's maximum context length is 10 tokens.", "code": "context_length_exceeded"}}, 400
)


async def test_a_conversation_that_is_too_long_is_summarised_and_asked_again_on_both_surfaces(
    upstream: Upstream, second: Upstream
) -> None:
    said = [{"role": "user" if number % 2 == 0 else "assistant", "content": f"Turn {number}"} for number in range(9)]
    governance = {"auto_retry_on_context_limit": True}
    async with running(sections(upstream, second, governance=governance)) as twinspan:
        upstream.plays(TOO_LONG, says("It began with turns."), says("At last."))
        async with twinspan.openai() as sdk:
            asked_for: Any = {"model": "one", "messages": said, "stream": True}
            stream = await sdk.chat.completions.create(**asked_for)
            text = "".join([piece.choices[0].delta.content or "" async for piece in stream if piece.choices])
        assert text == "At last."
        asked = [[message["content"] for message in request.body["messages"]] for request in upstream.requests]
        assert asked[0] == [one["content"] for one in said]
        assert asked[1][1] == "user: Turn 0\n\nassistant: Turn 1\n\nuser: Turn 2"
        assert asked[2] == ["Summary of the earlier conversation:\n\nIt began with turns.", *asked[0][3:]]
        upstream.plays(TOO_LONG, says("Brief."), says("At last."))
        chat = chat_pb2.ChatRequest(
            model="one", messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text=str(one["content"])) for one in said]
        )
        under_way = ChatServiceStub(twinspan.network).Complete(
            chat_pb2.CompleteRequest(chat=chat), metadata=twinspan.metadata, timeout=5
        )
        assert (await under_way).choices[0].message.text == "At last."
        assert dict(await under_way.trailing_metadata())["x-twinspan-attempts"] == "3"
        assert "twinspan_summarization_retries_total 2.0" in (await twinspan.rest.get("/metrics")).text


async def test_without_a_summary_the_error_is_that_of_the_first_try(upstream: Upstream, second: Upstream) -> None:
    said = [{"role": "user", "content": f"Turn {number}"} for number in range(9)]
    for governance, scripts, asked in (({}, (TOO_LONG,), 1), ({"auto_retry_on_context_limit": True}, (TOO_LONG, BROKEN), 2)):
        upstream.requests.clear()
        upstream.plays(*scripts)
        async with running(sections(upstream, second, governance=governance)) as twinspan:
            answer = await twinspan.chat(ask("one", messages=said))
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
            assert len(upstream.requests) == asked
