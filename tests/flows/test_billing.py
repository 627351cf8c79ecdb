"""How providers are paid: who is exhausted, for how long, and what a request costs, on both surfaces, with a real endpoint."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from twinspan.v1 import admin_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from tests.flows.running import Running, configuration, running
from tests.flows.test_accounts import Asker
from tests.flows.test_cost import PLAIN_USD, PRICES
from tests.flows.test_parity import HELLO as STREAMED
from tests.flows.upstream import MODEL, OTHERS, Script, Upstream, by_path, completion, says, text, whole
from tests.servers import valkey
from tests.waiting import until

HELLO = {**STREAMED, "stream": False}
FINE = says("Hello.")
NEVER = 86_400
"""So long is no test: what happens after it is not to happen."""


def spent(**headers: str) -> Script:
    return whole(completion({"role": "assistant", "content": "Hi."}), 200, **headers)


def two(upstream: Upstream, spare: Upstream, billing: Any, of_spare: Any = None) -> dict[str, Any]:
    """Returns a configuration with two providers and an agent over both; of the first the billing is known."""
    acme = {"base_url": upstream.base_url, "api_key": "secret-of-acme", "models": [MODEL, "tiny:free"], "billing": billing}
    prices = {MODEL: PRICES, "tiny:free": PRICES}
    other = {"base_url": spare.base_url, "api_key": "k", "models": ["spare-1"], "model_info": {"spare-1": PRICES}}
    return configuration(
        upstream.base_url,
        providers={"acme": {**acme, "model_info": prices}, "spare": {**other, "billing": of_spare}},
        agents={"smart": {"models": [MODEL, "spare-1"]}},
    )


@pytest.fixture
async def spare() -> AsyncIterator[Upstream]:
    async with Upstream() as started:
        yield started


@pytest.fixture
async def balance() -> AsyncIterator[Upstream]:
    """A real HTTP endpoint, of another host and port than the provider's, that says what is left."""
    async with Upstream() as started:
        yield started


@pytest.fixture(params=["rest", "inprocess", "network"])
def surface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def standing(twinspan: Running) -> dict[str, Any]:
    (row,) = (await twinspan.rest.get("/statsz")).json()["billing"]["providers"]
    return dict(row)


async def said(twinspan: Running, **fields: Any) -> dict[str, Any]:
    """Waits until a provider's billing stands so, since it is asked in the background."""
    async with asyncio.timeout(5):
        while fields.items() - (row := await standing(twinspan)).items():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.01)
    return row


async def provider_of(twinspan: Running, model: str = "smart") -> str:
    answer = await twinspan.chat({**HELLO, "model": model})
    assert answer.status_code == 200, answer.text
    return answer.headers["X-Twinspan-Provider"]


def api(balance: Upstream, path: str = "/v1/balance", **fields: Any) -> dict[str, Any]:
    return {"source": "api", "url": balance.base_url.removesuffix("/v1") + path, "interval_seconds": NEVER, **fields}


async def test_a_provider_whose_endpoint_says_that_nothing_is_left_is_passed_over_by_agents(
    surface: str, upstream: Upstream, spare: Upstream, balance: Upstream
) -> None:
    balance.plays(whole({"data": {"left": "0.00", "of": 20}}))
    quota = api(balance, remaining="data.left", limit="data.of")
    async with running(two(upstream, spare, {"model": "subscription", "quota": quota})) as twinspan:
        row = await said(twinspan, exhausted=True)
        assert (row["provider"], row["model"], row["remaining"], row["limit"]) == ("acme", "subscription", 0, 20)
        asker = Asker(surface, twinspan)
        assert await asker.ask("smart") == "fine"
        assert (len(upstream.requests), len(spare.requests)) == (0, 1)
        assert await asker.ask(MODEL) == "quota_exhausted"
        answer = await twinspan.chat(HELLO)
        assert (answer.status_code, answer.json()["error_kind"]) == (429, "quota_exhausted")
        assert int(answer.headers["Retry-After"]) > NEVER
        assert upstream.requests == []
        metrics = (await twinspan.rest.get("/metrics")).text
        assert 'twinspan_billing_exhausted{provider="acme"} 1.0' in metrics


async def test_it_comes_back_with_an_endpoints_next_answer(upstream: Upstream, spare: Upstream, balance: Upstream) -> None:
    balance.plays(whole({"left": 0}), whole({"left": 7}))
    quota = api(balance, remaining="left", interval_seconds=1)
    async with running(two(upstream, spare, {"model": "credit", "quota": quota})) as twinspan:
        await said(twinspan, exhausted=True)
        row = await said(twinspan, exhausted=False)
        assert row["remaining"] == 7
        assert await provider_of(twinspan) == "acme"


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (text("<b>Left: 12</b>"), {"extraction": "regex", "remaining": "Left: ([0-9]+)"}),
        (text("", X_Left="12"), {"extraction": "header", "remaining": "x-left"}),
        (whole({"a": [{"left": 12}]}), {"remaining": "a.0.left"}),
    ],
    ids=["regex", "header", "json_path"],
)
async def test_an_endpoint_is_read_in_each_of_three_ways(
    upstream: Upstream, spare: Upstream, balance: Upstream, answer: Script, fields: dict[str, str]
) -> None:
    balance.plays(answer)
    quota = api(balance, headers={"X-Team": "core"}, **fields)
    async with running(two(upstream, spare, {"model": "credit", "quota": quota})) as twinspan:
        await said(twinspan, remaining=12)
    (request,) = balance.requests
    assert request.headers["X-Team"] == "core"
    assert "secret-of-acme" not in str(request.headers)


async def test_the_credential_goes_to_the_providers_own_host(upstream: Upstream, spare: Upstream) -> None:
    upstream.plays(by_path({"/v1/balance": whole({"left": 3}), "/v1/chat/completions": FINE}))
    quota = api(upstream, remaining="left")
    async with running(two(upstream, spare, {"model": "credit", "quota": quota})) as twinspan:
        await said(twinspan, remaining=3)
    assert upstream.requests[0].headers["Authorization"] == "Bearer secret-of-acme"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(text("Oops.", 500), "answered with HTTP 500"), (text("Hello."), "its answer is not JSON"), (whole({}), "there is no 'left'")],
)
async def test_an_endpoint_that_says_nothing_leaves_the_provider_available_and_is_in_the_log(
    upstream: Upstream, spare: Upstream, balance: Upstream, answer: Script, complaint: str
) -> None:
    started = asyncio.Event()

    async def script(http: Any, request: Any) -> Any:
        await started.wait()
        return await answer(http, request)

    balance.plays(script)
    async with running(two(upstream, spare, {"model": "credit", "quota": api(balance, remaining="left")})) as twinspan:
        started.set()
        await until(lambda: bool(twinspan.complaints()))
        assert complaint in twinspan.complaints()[0]
        assert await provider_of(twinspan) == "acme"


HEADERS = {"source": "headers", "remaining": "x-ratelimit-remaining-requests", "reset": "x-ratelimit-reset-requests"}


async def test_the_headers_of_an_answer_say_that_a_provider_is_exhausted(surface: str, upstream: Upstream, spare: Upstream) -> None:
    upstream.plays(spent(X_RateLimit_Remaining_Requests="0", X_RateLimit_Reset_Requests="1h0m0s"))
    async with running(two(upstream, spare, {"model": "subscription", "quota": HEADERS})) as twinspan:
        asker = Asker(surface, twinspan)
        assert [await asker.ask("smart") for _ in range(3)] == ["fine"] * 3
        assert (len(upstream.requests), len(spare.requests)) == (1, 2)
        assert await asker.ask(MODEL) == "quota_exhausted"
        assert 3500 < (await standing(twinspan))["remaining_seconds"] <= 3600


ASKED: dict[str, Any] = {
    "/v1/embeddings": {"input": "Hi"},
    "/v1/moderations": {"input": "Hi"},
    "/v1/audio/speech": {"input": "Hi", "voice": "alloy"},
    "/proxy/acme/v1/moderations": {"input": "Hi"},
}


@pytest.mark.parametrize("path", ASKED)
async def test_headers_are_read_from_answers_of_any_kind(upstream: Upstream, spare: Upstream, path: str) -> None:
    async def script(http: Any, request: Any) -> Any:
        answer = await by_path(OTHERS)(http, request)
        answer.headers["x-left"] = "0"
        return answer

    upstream.plays(script)
    quota = {"source": "headers", "remaining": "x-left"}
    async with running(two(upstream, spare, {"model": "subscription", "quota": quota})) as twinspan:
        assert (await twinspan.rest.post(path, json={"model": MODEL, **ASKED[path]})).status_code == 200
        again = await twinspan.rest.post(path, json={"model": MODEL, **ASKED[path]})
        assert (again.status_code, again.json()["error_kind"]) == (429, "quota_exhausted")


async def test_headers_are_read_of_a_response_that_was_made_by_chat(upstream: Upstream, spare: Upstream) -> None:
    upstream.plays(spent(X_Left="0"))
    quota = {"source": "headers", "remaining": "x-left"}
    async with running(two(upstream, spare, {"model": "subscription", "quota": quota})) as twinspan:
        assert (await twinspan.rest.post("/v1/responses", json={"model": MODEL, "input": "Hi"})).status_code == 200
        assert (await standing(twinspan))["exhausted"] is True


async def test_a_credit_is_spent_by_requests_and_what_was_spent_survives_a_restart(
    surface: str, upstream: Upstream, spare: Upstream, tmp_path: Path
) -> None:
    each = float(PLAIN_USD)
    sections = two(upstream, spare, {"model": "credit", "credit_usd": 2.5 * each})
    async with running(sections) as twinspan:
        asker = Asker(surface, twinspan)
        assert [await asker.ask(), await asker.ask()] == ["fine", "fine"]
        row = await standing(twinspan)
        assert row["spent_usd"] == pytest.approx(2 * each)
        assert row["exhausted"] is False
    written = json.loads((tmp_path / "state" / "twinspan" / "accounts.json").read_text())
    assert written["billing"]["acme"]["spent_usd"] == pytest.approx(2 * each)
    async with running(sections) as twinspan:
        asker = Asker(surface, twinspan)
        assert await asker.ask() == "fine"
        assert await asker.ask() == "quota_exhausted"
        answer = await twinspan.chat(HELLO)
        assert "credit" in answer.json()["error"]["message"]
        assert int(answer.headers["Retry-After"]) > 0
        assert await provider_of(twinspan) == "spare"
        metrics = (await twinspan.rest.get("/metrics")).text
        assert 'twinspan_billing_spend_usd{provider="acme"} 0.000216' in metrics
    assert len(upstream.requests) == 3


async def test_of_a_mixed_provider_the_free_models_cost_nothing_and_go_on(upstream: Upstream, spare: Upstream) -> None:
    billing = {"model": "mixed", "credit_usd": 0.00001, "free_models": ["*:free"]}
    async with running(two(upstream, spare, billing)) as twinspan:
        paid = await twinspan.chat(HELLO)
        assert paid.headers["X-Twinspan-Cost-Usd"] == PLAIN_USD
        assert (await twinspan.chat(HELLO)).status_code == 429
        free = await twinspan.chat({**HELLO, "model": "tiny:free"})
        assert (free.status_code, free.headers["X-Twinspan-Cost-Usd"]) == (200, "0")
        assert (await standing(twinspan))["spent_usd"] == pytest.approx(float(PLAIN_USD))


@pytest.mark.parametrize(("model", "cost"), [("subscription", "0"), ("free", "0"), ("credit", PLAIN_USD)])
async def test_what_a_request_costs_follows_from_how_its_provider_is_paid(
    upstream: Upstream, spare: Upstream, model: str, cost: str
) -> None:
    async with running(two(upstream, spare, {"model": model})) as twinspan:
        assert (await twinspan.chat(HELLO)).headers["X-Twinspan-Cost-Usd"] == cost
        stats = (await twinspan.rest.get("/statsz")).json()
        assert stats["billing"]["cost_usd"] == pytest.approx(float(cost))
        assert int(stats["billing"].get("unpriced_requests", 0)) == 0


async def test_targets_that_cost_nothing_go_first_where_it_is_preferred(upstream: Upstream, spare: Upstream) -> None:
    free = {"model": "free", "prefer_free": True}
    async with running(two(upstream, spare, {"model": "credit"}, free)) as twinspan:
        assert await provider_of(twinspan) == "spare"
        spare.plays(whole({"error": {"message": "Oops."}}, 500))
        assert await provider_of(twinspan) == "acme"
    free = {"model": "free"}
    async with running(two(upstream, spare, {"model": "credit"}, free)) as twinspan:
        assert await provider_of(twinspan) == "acme"


async def test_an_agent_whose_targets_are_all_exhausted_says_when_the_first_one_is_back(
    upstream: Upstream, spare: Upstream
) -> None:
    upstream.plays(spent(X_Left="0", X_Reset="500"))
    spare.plays(spent(X_Left="0", X_Reset="100"))
    billing = {"model": "subscription", "quota": {"source": "headers", "remaining": "x-left", "reset": "x-reset"}}
    async with running(two(upstream, spare, billing, billing)) as twinspan:
        assert [await provider_of(twinspan), await provider_of(twinspan)] == ["acme", "spare"]
        answer = await twinspan.chat({**HELLO, "model": "smart"})
        assert (answer.status_code, answer.json()["error_kind"]) == (429, "quota_exhausted")
        assert 90 <= int(answer.headers["Retry-After"]) <= 100


async def test_how_billing_stands_is_the_same_over_grpc(upstream: Upstream, spare: Upstream) -> None:
    async with running(two(upstream, spare, {"model": "credit", "credit_usd": 1})) as twinspan:
        await twinspan.chat(HELLO)
        for channel in (twinspan.inprocess, twinspan.network):
            stats = await AdminServiceStub(channel).GetStats(admin_pb2.GetStatsRequest(), metadata=twinspan.metadata, timeout=5)
            (row,) = stats.billing.providers
            assert (row.provider, row.model, row.credit_usd, row.exhausted) == ("acme", "credit", 1.0, False)
            assert row.spent_usd == pytest.approx(float(PLAIN_USD))
            assert not row.HasField("remaining")


async def test_gateways_that_share_a_state_store_share_what_is_spent_of_a_credit(upstream: Upstream, spare: Upstream) -> None:
    each = float(PLAIN_USD)
    with valkey() as server:
        sections = two(upstream, spare, {"model": "credit", "credit_usd": 2.5 * each})
        sections = {**sections, "state": {"url": f"valkey://127.0.0.1:{server.port}"}}
        async with running(sections) as one, running(sections) as other:
            assert [await provider_of(one) for _ in range(3)] == ["acme"] * 3
            row = await said(other, exhausted=True)
            assert row["spent_usd"] == pytest.approx(3 * each, abs=2e-6)
            assert (await provider_of(other), await provider_of(one)) == ("spare", "spare")
        async with running(sections) as later:  # told once, and not by each that starts
            assert (await said(later, exhausted=True))["spent_usd"] == pytest.approx(3 * each, abs=2e-6)
