"""Explaining a request: what would come of it, on both surfaces, with nothing sent and nothing claimed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from twinspan.v1 import admin_pb2_grpc, chat_pb2, content_pb2, explain_pb2

from bridge import errors
from bridge.cli.explain import lines
from bridge.transcoding import as_json
from tests.flows.commands import run
from tests.flows.running import Running, configuration, running
from tests.flows.upstream import Upstream, says, whole

KEY, BOUND, READER = "ts-a-key-with-some-limits", "ts-a-key-that-is-bound-to-one", "ts-a-key-that-only-reads"
BODY = {"model": "smart", "max_completion_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
async def twinspan(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Running]:
    acme = {"base_url": upstream.base_url, "api_key": "upstream-secret-key", "models": ["one", "two", "three"]}
    prices = {"input_cost_per_1m": 0, "output_cost_per_1m": 1000}
    sections = configuration(
        upstream.base_url,
        providers={
            "acme": {**acme, "model_info": {"one": prices, "two": {"context_window": 10}, "three": prices}, "ratelimit_max_rpm": 60}
        },
        agents={"smart": {"models": ["one", "two", "three"], "failure_threshold": 1, "max_parallel": 8}},
        context={"auto_context_skip": True},
        api_keys=[
            {"name": "limited", "token": KEY, "rpm": 5, "tpm": 1000, "budget_usd": 0.25},
            {"name": "bound", "token": BOUND, "allowed_agents": ["one"]},
            {"name": "reader", "token": READER, "roles": ["read-only"]},
        ],
        files={"dir": str(tmp_path / "files")},
    )
    upstream.plays(whole({"error": {"message": "Oops."}}, 500), says("Hello."))
    async with running(sections) as started:
        yield started
        assert started.complaints() == []


async def explain(twinspan: Running, token: str = KEY, body: Any = BODY, **headers: str) -> dict[str, Any]:
    """Asks over every surface, makes sure that all say the same, and returns it."""
    answer = await twinspan.rest.post(
        "/v1/explain",
        json=body,
        headers={"Authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in headers.items()}},
    )
    chat = chat_pb2.ChatRequest(
        model=body["model"],
        messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text=body["messages"][0]["content"])],
        max_completion_tokens=body.get("max_completion_tokens"),
    )
    metadata = (("authorization", f"Bearer {token}"), *((name.lower().replace("_", "-"), text) for name, text in headers.items()))
    for channel in (twinspan.network, twinspan.inprocess):
        try:
            response = await admin_pb2_grpc.AdminServiceStub(channel).Explain(
                explain_pb2.ExplainRequest(chat=chat), metadata=metadata, timeout=5
            )
        except grpc.aio.AioRpcError as error:
            same = errors.of_rpc(error).kind_name == answer.json()["error_kind"]
        else:
            same = _comparable(as_json(response)) == _comparable(answer.json())
        assert same, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _comparable(explained: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what a form of the same request, or a moment, changes."""
    kept = {name: value for name, value in explained.items() if name not in {"input_tokens", "left_out", "timeout_seconds"}}
    kept["left_out"] = [(one["model"], one["reason"]) for one in explained["left_out"]]
    kept["limits"] = [{**one, "renews_seconds": 0} for one in explained["limits"]]
    return kept


async def test_an_explanation_shows_who_asks_where_it_would_go_and_what_is_left(twinspan: Running, upstream: Upstream) -> None:
    explained = await explain(twinspan)
    assert explained["caller"] == {
        "key": "limited",
        "roles": ["user"],
        "team": "",
        "allowed_agents": [],
        "allowed_endpoints": [],
    }
    assert "refusal" not in explained
    assert (explained["model"], explained["is_agent"], explained["strategy"]) == ("smart", True, "fallback")
    assert [(one["model"], one["score"], one["estimated_usd"]) for one in explained["targets"]] == [
        ("one", 0, 0.1),
        ("three", 2, 0.1),
    ]
    assert [(one["model"], one["reason"]) for one in explained["left_out"]] == [("two", "context")]
    assert (explained["output_tokens"], explained["reserved_usd"]) == (100, 0.1)
    limits = {(one["scope"], one["of"]): (one["limit"], one["left"]) for one in explained["limits"]}
    assert limits == {
        ("key", "requests"): (5, 5),
        ("key", "tokens"): (1000, 1000),
        ("key", "budget"): (0.25, 0.25),
        ("agent", "parallel"): (8, 8),
        ("host", "requests"): (60, 60),
    }
    assert upstream.requests == []


async def test_it_takes_nothing_and_then_shows_what_requests_took(twinspan: Running) -> None:
    for _ in range(10):
        await explain(twinspan)
    answer = await twinspan.rest.post("/v1/chat/completions", json=BODY, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.headers["X-Twinspan-Attempts"] == "2"
    async with asyncio.timeout(5):
        while True:
            explained = await explain(twinspan)
            limits = {(one["scope"], one["of"]): one["left"] for one in explained["limits"]}
            if limits["key", "budget"] == 0.247:
                break
    assert (limits["key", "requests"], limits["agent", "parallel"], limits["host", "requests"]) == (4, 8, 58)
    assert [one["model"] for one in explained["targets"]] == ["three"]
    assert {one["model"]: one["reason"] for one in explained["left_out"]} == {"one": "breaker", "two": "context"}


@pytest.mark.parametrize(
    ("token", "changed", "headers", "kind"),
    [
        (BOUND, {}, {}, "permission_denied"),
        (KEY, {"model": "nobody"}, {}, "model_not_found"),
        (KEY, {"max_completion_tokens": 300}, {}, "budget_exceeded"),
        (KEY, {"max_completion_tokens": 100}, {"X_Twinspan_Agent": "nobody"}, "invalid_request"),
    ],
)
async def test_a_request_that_would_be_refused_is_told_why(
    twinspan: Running, token: str, changed: dict[str, Any], headers: dict[str, str], kind: str
) -> None:
    explained = await explain(twinspan, token, {**BODY, **changed}, **headers)
    assert explained["refusal"]["kind"] == kind
    sent = await twinspan.rest.post(
        "/v1/chat/completions",
        json={**BODY, **changed},
        headers={"Authorization": f"Bearer {token}", **{name.replace("_", "-"): text for name, text in headers.items()}},
    )
    assert (sent.json()["error_kind"], sent.json()["error"]["message"]) == (kind, explained["refusal"]["message"])


async def test_whoever_may_not_use_models_may_not_have_them_explained(twinspan: Running) -> None:
    assert (await explain(twinspan, READER))["error_kind"] == "permission_denied"
    assert (await explain(twinspan, "ts-nobody-knows-this-one"))["error_kind"] == "auth_failed"
    assert (await explain(twinspan, KEY, {**BODY, "messages": [{"role": "user", "content": "Hello"}], "model": ""}))["refusal"]


async def test_the_command_shows_it_over_both_surfaces(twinspan: Running, tmp_path: Path) -> None:
    for place in (("--url", twinspan.url), ("--grpc", twinspan.target)):
        ran = await run("explain", "Hello", "--model", "smart", "--token", KEY, *place, cwd=tmp_path)
        assert ran.code == 0, ran.err
        assert "key limited (user)" in ran.out
        assert "  1. acme/one: score 0, breaker closed, 0 under way, $1.000000" in ran.out
        assert "REFUSED: The key 'limited' has $0.250000 left of its budget" in ran.out


def test_a_refusal_before_any_route_is_all_that_is_shown() -> None:
    caller = {"key": "ann", "roles": ["user"], "team": "red", "allowed_agents": ["one"]}
    explained = {"caller": caller, "refusal": {"message": "No.", "kind": "permission_denied"}, "model": ""}
    assert list(lines(explained)) == ["key ann (user, of the team red); may name one", "REFUSED: No. (permission_denied)"]
