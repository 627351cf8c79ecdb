"""Discovery: what providers say they have is what the gateway lists, and what agents are made of."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from twinspan.v1 import models_pb2
from twinspan.v1.models_pb2_grpc import ModelsServiceStub

from tests.flows.running import Running, configuration, running
from tests.flows.upstream import Request, Script, Upstream, by_path, hangs, says, text, whole

ON = {"enabled": True}
ASK = {"stream": False, "messages": [{"role": "user", "content": "Hello"}]}


def lists(*names: str) -> Script:
    """Lists models in OpenAI's form."""
    return whole({"object": "list", "data": [{"id": name, "object": "model", "created": 1700000000} for name in names]})


def serves(models: Script) -> Script:
    """Lists models, and answers chats."""
    return by_path({"/v1/models": models, "/v1/chat/completions": says("Hello there.")})


def sections(providers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return configuration("http://127.0.0.1:1/v1", **{"discovery": ON, "providers": dict(providers), **more})


def at(upstream: Upstream, **fields: Any) -> dict[str, Any]:
    return {"base_url": upstream.base_url, "api_key": "upstream-secret-key", **fields}


async def listed(twinspan: Running) -> list[str]:
    """Returns the names that are listed, over REST, having seen that gRPC lists the same, in process and over the network."""
    answer = await twinspan.rest.get("/v1/models")
    assert answer.status_code == 200, answer.text
    names = [model["id"] for model in answer.json()["data"]]
    for channel in (twinspan.network, twinspan.inprocess):
        request = models_pb2.ModelsServiceListRequest()
        response = await ModelsServiceStub(channel).List(request, metadata=twinspan.metadata, timeout=5)
        assert [model.id for model in response.models] == names
    return names


async def discoveries(twinspan: Running) -> list[str]:
    lines = (await twinspan.rest.get("/metrics")).text.splitlines()
    return [
        line.removeprefix("twinspan_model_discovery_total") for line in lines if line.startswith("twinspan_model_discovery_total{")
    ]


OPENROUTER = {
    "id": "lab/model-x",
    "created": 1700000000,
    "context_length": 200_000,
    "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
    "pricing": {"prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003"},
    "top_provider": {"max_completion_tokens": 64_000},
    "supported_parameters": ["tools", "reasoning"],
}


async def test_models_are_listed_at_once_with_what_their_provider_says_of_them(upstream: Upstream) -> None:
    upstream.plays(serves(whole({"data": [OPENROUTER]})))
    async with running(sections({"router": at(upstream, listing_style="openrouter")})) as twinspan:
        (model,) = (await twinspan.rest.get("/v1/models")).json()["data"]
        capabilities = model.pop("capabilities")
        assert {"reasoning", "tool_calls", "vision"} <= set(capabilities)
        assert model == {
            "id": "lab/model-x",
            "object": "model",
            "created": 1700000000,
            "owned_by": "router",
            "context_window": 200_000,
            "max_tokens": 64_000,
            "input_cost_per_1m": 3.0,
            "output_cost_per_1m": 15.0,
            "cached_input_cost_per_1m": 0.3,
            "source": "discovered",
        }
        assert (await twinspan.rest.get("/v1/models/lab/model-x")).json() == {**model, "capabilities": capabilities}
        for channel in (twinspan.network, twinspan.inprocess):
            request = models_pb2.ModelsServiceGetRequest(id="lab/model-x")
            typed = await ModelsServiceStub(channel).Get(request, metadata=twinspan.metadata, timeout=5)
            assert (typed.context_window, typed.max_tokens, typed.input_cost_per_1m, typed.cached_input_cost_per_1m) == (
                200_000,
                64_000,
                3.0,
                0.3,
            )
            assert list(typed.capabilities) == capabilities
        assert await discoveries(twinspan) == ['{provider="router",result="ok"} 1.0']
    assert upstream.requests[0].headers["Authorization"] == "Bearer upstream-secret-key"


async def test_ollama_is_asked_for_each_of_its_models(upstream: Upstream) -> None:
    async def show(_http: web.BaseRequest, request: Request) -> web.StreamResponse:
        if request.body["model"] == "broken":
            return web.json_response({"error": "no"}, status=500)
        info = {"general.architecture": "qwen3", "qwen3.context_length": 40960}
        return web.json_response({"capabilities": ["completion", "tools"], "model_info": info})

    tags = whole({"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}, {"name": "broken"}]})
    upstream.plays(by_path({"/api/tags": tags, "/api/show": show}))
    async with running(sections({"ollama": {"base_url": upstream.base_url}})) as twinspan:
        qwen, broken = (await twinspan.rest.get("/v1/models")).json()["data"]
        assert (qwen["id"], qwen["context_window"], "vision" in qwen["capabilities"]) == ("qwen3:8b", 40960, False)
        assert (broken["id"], broken["context_window"], "vision" in broken["capabilities"]) == ("broken", None, True)


async def test_what_ollama_does_not_show_in_time_is_listed_all_the_same(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.discovery.fetch.SECONDS", 0.5)
    shown = whole({"capabilities": ["completion"], "model_info": {"general.architecture": "a", "a.context_length": 5}})

    async def show(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        return await (shown if request.body["model"] == "quick" else hangs())(http, request)

    tags = whole({"models": [{"name": "slow"}, {"name": "quick"}]})
    upstream.plays(by_path({"/api/tags": tags, "/api/show": show}))
    async with running(sections({"ollama": {"base_url": upstream.base_url}})) as twinspan:
        models = (await twinspan.rest.get("/v1/models")).json()["data"]
        assert [(model["id"], model["context_window"]) for model in models] == [("slow", None), ("quick", 5)]
        assert await discoveries(twinspan) == ['{provider="ollama",result="ok"} 1.0']


async def test_anthropics_and_coheres_lists_are_read_to_their_last_page(upstream: Upstream) -> None:
    async def pages(http: web.BaseRequest, _request: Request) -> web.StreamResponse:
        if http.query.get("limit"):
            assert http.headers["x-api-key"] == "upstream-secret-key"
            after = http.query.get("after_id")
            models = [{"type": "model", "id": "claude-b" if after else "claude-a", "max_tokens": 64_000}]
            return web.json_response({"data": models, "has_more": after is None, "last_id": models[0]["id"]})
        token = http.query.get("page_token")
        commands = [{"name": "command-b" if token else "command-a", "endpoints": ["chat"], "context_length": 256000}]
        return web.json_response({"models": commands, "next_page_token": None if token else "more"})

    upstream.plays(pages)
    cohere = {**at(upstream), "base_url": upstream.base_url.replace("/v1", "/compatibility/v1")}
    async with running(sections({"anthropic": at(upstream), "cohere": cohere})) as twinspan:
        models = (await twinspan.rest.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == ["claude-a", "claude-b", "command-a", "command-b"]
    assert [model["max_tokens"] for model in models[:2]] == [64_000, 64_000]
    assert [model["context_window"] for model in models[2:]] == [256_000, 256_000]


async def test_gemini_is_asked_in_its_own_form_without_the_header_that_it_takes_for_another(upstream: Upstream) -> None:
    upstream.plays(by_path({"/v1beta/models": whole({"models": [{"name": "models/gemini-x", "inputTokenLimit": 1000}]})}))
    gemini = {**at(upstream), "base_url": f"http://127.0.0.1:{upstream.port}/v1beta/openai"}
    async with running(sections({"gemini": gemini})) as twinspan:
        (model,) = (await twinspan.rest.get("/v1/models")).json()["data"]
    assert (model["id"], model["context_window"]) == ("gemini-x", 1000)
    assert upstream.requests[0].headers["x-goog-api-key"] == "upstream-secret-key"
    assert "Authorization" not in upstream.requests[0].headers


async def redirects(_http: web.BaseRequest, _request: Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "/v1/elsewhere"})


async def is_huge(http: web.BaseRequest, _request: Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(http)
    with contextlib.suppress(ConnectionError):  # which is what its server would complain of, where the gateway hangs up
        while True:
            await response.write(b" " * 65536)
    return response


FAULTS: list[tuple[str, Script, str]] = [
    ("a page of HTML", text("<html>upstream-secret-key</html>"), "provider_error"),
    ("a list of something else", whole({"models": 5}), "provider_error"),
    ("a refusal", whole({"error": {"message": "No: upstream-secret-key"}}, 401), "auth_failed"),
    ("an error", whole({}, 500), "provider_error"),
    ("a redirect", redirects, "provider_error"),
    ("more than 10 MiB", is_huge, "provider_error"),
]


@pytest.mark.parametrize(("models", "result"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
async def test_a_provider_that_gives_no_list_costs_nobody_else_theirs(upstream: Upstream, models: Script, result: str) -> None:
    async with Upstream() as other:
        upstream.plays(serves(models))
        other.plays(serves(lists("fine")))
        async with running(sections({"bad": at(upstream), "good": at(other)})) as twinspan:
            assert await listed(twinspan) == ["fine"]
            assert sorted(await discoveries(twinspan)) == [
                f'{{provider="bad",result="{result}"}} 1.0',
                '{provider="good",result="ok"} 1.0',
            ]
            await twinspan.gateway.core.discover()
            (complaint,) = twinspan.complaints()
            assert "'bad'" in complaint
            assert "upstream-secret-key" not in complaint
            answer = await twinspan.chat({**ASK, "model": "unheard-of"})
            assert (answer.status_code, answer.headers["X-Twinspan-Provider"]) == (200, "bad")


async def test_a_dead_and_a_silent_provider_hold_the_gateway_back_no_longer_than_the_bound(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.discovery.fetch.SECONDS", 0.2)
    async with Upstream() as silent:
        silent.plays(hangs())
        upstream.plays(serves(lists("fine")))
        dead = {"base_url": "http://127.0.0.1:1/v1"}
        async with asyncio.timeout(5), running(sections({"dead": dead, "silent": at(silent), "good": at(upstream)})) as twinspan:
            assert await listed(twinspan) == ["fine"]
            assert sorted(await discoveries(twinspan)) == [
                '{provider="dead",result="network_error"} 1.0',
                '{provider="good",result="ok"} 1.0',
                '{provider="silent",result="provider_timeout"} 1.0',
            ]
        await asyncio.wait_for(silent.requests[0].gone.wait(), 5)


async def test_a_later_round_changes_the_catalogue_and_a_failed_one_leaves_it(upstream: Upstream) -> None:
    upstream.plays(serves(lists("one")))
    agents = {"ones": {"models": [{"model_rgx": "one"}]}}
    async with running(sections({"acme": at(upstream)}, agents=agents)) as twinspan:
        assert await listed(twinspan) == ["ones", "one"]
        upstream.plays(serves(lists("two", "one", "another-one")))
        await twinspan.gateway.core.discover()
        assert await listed(twinspan) == ["ones", "two", "one", "another-one"]
        upstream.plays(serves(whole({}, 500)))
        await twinspan.gateway.core.discover()
        assert await listed(twinspan) == ["ones", "two", "one", "another-one"]
        assert await discoveries(twinspan) == [
            '{provider="acme",result="ok"} 2.0',
            '{provider="acme",result="provider_error"} 1.0',
        ]


async def test_rounds_come_by_themselves(upstream: Upstream) -> None:
    upstream.plays(serves(lists("one")), serves(lists("one", "two")))
    async with running(sections({"acme": at(upstream)}, discovery={"enabled": True, "refresh_seconds": 0.01})) as twinspan:
        await asyncio.wait_for(upstream.arrived(3), 5)  # the second round is over when the third begins
        assert await listed(twinspan) == ["one", "two"]


async def test_an_agents_selectors_follow_what_is_found_and_what_it_learnt_stays(upstream: Upstream) -> None:
    broken = whole({"error": {"message": "Oops."}}, 500)

    def fails_for_a(models: Script) -> Script:
        async def chat(http: web.BaseRequest, request: Request) -> web.StreamResponse:
            return await (broken if request.body["model"] == "a" else says("Hi."))(http, request)

        return by_path({"/v1/models": models, "/v1/chat/completions": chat})

    upstream.plays(fails_for_a(lists("a", "b")))
    agents = {"any": {"models": [{"model_rgx": "."}], "failure_threshold": 1, "cooldown_seconds": 3600}}
    async with running(sections({"acme": at(upstream)}, agents=agents)) as twinspan:
        first = await twinspan.chat({**ASK, "model": "any"})
        assert (first.headers["X-Twinspan-Model"], first.headers["X-Twinspan-Attempts"]) == ("b", "2")
        upstream.plays(fails_for_a(lists("a", "c", "b")))
        await twinspan.gateway.core.discover()
        second = await twinspan.chat({**ASK, "model": "any"})
        assert (second.headers["X-Twinspan-Model"], second.headers["X-Twinspan-Attempts"]) == ("c", "1"), "a cools down still"


async def test_an_agent_of_whose_models_none_is_found_says_so_and_comes_when_one_is(upstream: Upstream) -> None:
    upstream.plays(serves(lists("other")))
    async with running(sections({"acme": at(upstream)}, agents={"smart": {"models": [{"model_rgx": "^gpt"}]}})) as twinspan:
        assert await listed(twinspan) == ["other"]
        answer = await twinspan.chat({**ASK, "model": "smart"})
        assert (answer.status_code, answer.json()["error_kind"]) == (503, "not_configured")
        upstream.plays(serves(lists("gpt-x")))
        await twinspan.gateway.core.discover()
        assert await listed(twinspan) == ["smart", "gpt-x"]
        assert (await twinspan.chat({**ASK, "model": "smart"})).headers["X-Twinspan-Model"] == "gpt-x"


async def test_requests_under_way_keep_the_catalogue_they_began_with(upstream: Upstream) -> None:
    held = asyncio.Event()

    async def chat(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        await held.wait()
        return await says("At last.")(http, request)

    upstream.plays(by_path({"/v1/models": lists("one"), "/v1/chat/completions": chat}))
    async with running(sections({"acme": at(upstream)})) as twinspan:
        asked = asyncio.create_task(twinspan.chat({**ASK, "model": "one"}))
        await asyncio.wait_for(upstream.arrived(2), 5)
        upstream.plays(serves(lists("two")))
        await twinspan.gateway.core.discover()
        assert await listed(twinspan) == ["two"]
        held.set()
        assert (await asked).headers["X-Twinspan-Model"] == "one"


async def test_auto_agents_answer_like_any_other_and_are_bound_by_keys(upstream: Upstream) -> None:
    info = {"small": {"input_cost_per_1m": 0.1}, "big": {"input_cost_per_1m": 10, "capabilities": ["vision"]}}
    upstream.plays(serves(lists("big", "small", "text-embedding-1")))
    keys = [{"name": "narrow", "token": "ts-the-narrow-key-of-tests", "roles": ["user"], "allowed_agents": ["fast"]}]
    discovery = {"enabled": True, "auto_agents": True, "auto_agents_config": {"agents": ["fast", "vision"]}}
    async with running(sections({"acme": at(upstream, model_info=info)}, discovery=discovery, api_keys=keys)) as twinspan:
        assert await listed(twinspan) == ["fast", "vision", "big", "small", "text-embedding-1"]
        fast = (await twinspan.rest.get("/v1/models/fast")).json()
        assert (fast["owned_by"], fast["source"], fast["input_cost_per_1m"]) == ("twinspan", "agent", 0.1)
        assert (await twinspan.chat({**ASK, "model": "fast"})).headers["X-Twinspan-Model"] == "small"
        narrow = {"Authorization": "Bearer ts-the-narrow-key-of-tests"}
        assert [model["id"] for model in (await twinspan.rest.get("/v1/models", headers=narrow)).json()["data"]] == ["fast"]
        assert (await twinspan.chat({**ASK, "model": "big"}, **narrow)).status_code == 403


async def test_without_discovery_nobody_is_asked_and_any_model_is_taken(upstream: Upstream) -> None:
    upstream.plays(serves(lists("one")))
    async with running(sections({"acme": at(upstream)}, discovery={})) as twinspan:
        await twinspan.gateway.core.discover()
        assert await listed(twinspan) == []
        assert (await twinspan.chat({**ASK, "model": "anything"})).status_code == 200
    assert [request.path for request in upstream.requests] == ["/v1/chat/completions"]


async def test_a_reload_asks_again(upstream: Upstream) -> None:
    upstream.plays(serves(lists("one")))
    async with running(sections({"acme": at(upstream)})) as twinspan:
        upstream.plays(serves(lists("two")))
        await twinspan.gateway.core.reload()
        assert await listed(twinspan) == ["two"]
