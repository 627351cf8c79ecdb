"""Moderations: one JSON object in, one out, over both surfaces."""

import json
from typing import Any

import grpc
import pytest
from twinspan.v1 import moderations_pb2
from twinspan.v1.moderations_pb2_grpc import ModerationsServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running
from tests.flows.upstream import MODEL, Upstream, text, whole

ANSWER = {
    "id": "modr-1",
    "model": "omni-1",
    "results": [
        {
            "flagged": True,
            "categories": {"hate": True, "violence": False},
            "category_scores": {"hate": 0.75, "violence": 0},
            "category_applied_input_types": {"hate": ["text"]},
        }
    ],
    "x_new": {"deep": [1.50]},
}
TYPED = moderations_pb2.ModerateResponse(
    id="modr-1",
    model="omni-1",
    results=[
        moderations_pb2.ModerationResult(
            flagged=True,
            categories={"hate": True, "violence": False},
            category_scores={"hate": 0.75, "violence": 0},
            extra={"category_applied_input_types": '{"hate": ["text"]}'},
        )
    ],
    extra={"x_new": '{"deep": [1.5]}'},
)


async def test_the_official_sdk_gets_the_providers_judgement(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(whole(ANSWER))
    async with twinspan.openai() as client:
        answer = await client.moderations.create(model=MODEL, input="Go away.", extra_body={"x_request": [1]})
    assert answer.results[0].flagged
    assert answer.results[0].category_scores.hate == 0.75
    assert upstream.requests[0].path == "/v1/moderations"
    assert upstream.requests[0].body == {"model": MODEL, "input": "Go away.", "x_request": [1]}
    assert twinspan.complaints() == []


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stub_gets_the_same_in_typed_messages(twinspan: Running, upstream: Upstream, channel: str) -> None:
    upstream.plays(whole(ANSWER))
    request = moderations_pb2.ModerateRequest(
        model=MODEL,
        input=[
            moderations_pb2.ModerationInput(type="text", text="Go away."),
            moderations_pb2.ModerationInput(type="image_url", image_url=moderations_pb2.ModerationImage(url="data:,")),
        ],
        extra={"x_request": "[1]"},
    )
    call = ModerationsServiceStub(getattr(twinspan, channel)).Moderate(request, metadata=twinspan.metadata, timeout=5)
    assert await call == TYPED
    facts = dict(await call.trailing_metadata())
    assert (facts["x-twinspan-provider"], facts["x-twinspan-model"]) == ("acme", MODEL)
    assert upstream.requests[0].body == {
        "model": MODEL,
        "input": [{"type": "text", "text": "Go away."}, {"type": "image_url", "image_url": {"url": "data:,"}}],
        "x_request": [1],
    }


async def test_the_bytes_of_an_answer_come_as_they_are(twinspan: Running, upstream: Upstream) -> None:
    said = '{ "id":"é",  "results":[ ],"n":1.50 }'
    upstream.plays(text(said, content_type="application/json"))
    answer = await twinspan.rest.post("/v1/moderations", json={"model": MODEL, "input": ["a"]})
    assert answer.text == said
    assert answer.headers["X-Twinspan-Model"] == MODEL


async def test_its_spans_stand_in_one_tree(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(whole(ANSWER))
    await twinspan.rest.post("/v1/moderations", json={"model": MODEL, "input": "a"})
    (tree,) = await twinspan.spans.trees()
    names = []
    while True:
        names.append(tree.name)
        if not tree.children:
            break
        (tree,) = tree.children
    rpc = "twinspan.v1.ModerationsService/Moderate"
    assert names == ["POST /v1/moderations", rpc, rpc, f"moderation {MODEL}", "attempt acme"]
    assert tree.attributes["url.full"] == f"{upstream.base_url}/moderations"


@pytest.mark.parametrize(
    ("body", "status", "kind", "param"),
    [
        (b"", 400, "invalid_request", None),
        (b"[", 400, "invalid_request", None),
        (b"[1]", 400, "invalid_request", None),
        (b"[" * 100_000, 400, "invalid_request", None),
        (b'{"input":"\xff"}', 400, "invalid_request", None),
        ({"model": MODEL}, 400, "invalid_request", "input"),
        ({"model": MODEL, "input": 7}, 400, "invalid_request", "input"),
        ({"model": MODEL, "input": ["a", 7]}, 400, "invalid_request", "input[1]"),
        ({"model": 7, "input": "a"}, 400, "invalid_request", "model"),
        ({"model": "m" * 257, "input": "a"}, 400, "invalid_request", "model"),
        ({"model": "nobody", "input": "a"}, 404, "model_not_found", "model"),
        ({"input": "a"}, 503, "not_configured", "model"),
    ],
    ids=str,
)
async def test_bad_input_has_the_same_answer_on_both_surfaces(
    twinspan: Running, upstream: Upstream, body: Any, status: int, kind: str, param: str | None
) -> None:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await twinspan.rest.post("/v1/moderations", content=sent)
    said = answer.json()
    assert (answer.status_code, said["error_kind"], said["error"]["param"]) == (status, kind, param)
    request = moderations_pb2.ModerateRequest(openai_json=sent)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ModerationsServiceStub(twinspan.network).Moderate(request, metadata=twinspan.metadata, timeout=5)
    failure = errors.of_rpc(raised.value)
    assert (failure.kind_name, failure.param, failure.message) == (kind, param, said["error"]["message"])
    assert upstream.requests == []
    assert twinspan.complaints() == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": [moderations_pb2.ModerationInput(type="text")], "extra": {"x": '1,"model":"another"'}}, "extra.x"),
    ],
)
async def test_a_typed_request_that_cannot_be_written_is_refused(
    twinspan: Running, upstream: Upstream, fields: dict[str, Any], param: str
) -> None:
    request = moderations_pb2.ModerateRequest(model=MODEL, **fields)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ModerationsServiceStub(twinspan.network).Moderate(request, metadata=twinspan.metadata, timeout=5)
    assert errors.of_rpc(raised.value).param == param
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (whole({"error": {"message": "No."}}, 400), "invalid_request"),
        (whole({"error": {"message": "Slow."}}, 429), "rate_limited"),
        (text("<html>", 500), "provider_error"),
        (text("<html>"), "provider_error"),
        (text("[]", content_type="application/json"), "provider_error"),
    ],
    ids=["refused", "too many", "its own trouble", "a page", "no object"],
)
async def test_a_providers_fault_is_a_clear_error(twinspan: Running, upstream: Upstream, answer: Any, kind: str) -> None:
    upstream.plays(answer)
    said = await twinspan.rest.post("/v1/moderations", json={"model": MODEL, "input": "a"})
    assert said.json()["error_kind"] == kind
    assert said.headers["X-Twinspan-Attempts"] == "1"
    assert twinspan.complaints() == []


async def test_a_request_that_names_no_model_goes_to_who_offers_moderations(upstream: Upstream) -> None:
    offering = {"base_url": upstream.base_url, "api_key": "k", "capabilities": ["moderations"]}
    providers = {"acme": {"base_url": "http://127.0.0.1:1", "models": [MODEL]}, "judge": offering}
    upstream.plays(whole(ANSWER))
    async with running(configuration(upstream.base_url, providers=providers)) as twinspan:
        answer = await twinspan.rest.post("/v1/moderations", json={"input": "a"})
    assert answer.headers["X-Twinspan-Provider"] == "judge"
    assert upstream.requests[0].body == {"input": "a"}


async def test_an_agents_targets_are_tried_in_turn(upstream: Upstream) -> None:
    async with Upstream() as other:
        upstream.plays(text("", 500))
        other.plays(whole(ANSWER))
        providers = {
            "one": {"base_url": upstream.base_url, "models": ["a"]},
            "two": {"base_url": other.base_url, "models": ["b"]},
        }
        agents = {"judge": {"models": ["a", "b"]}}
        async with running(configuration(upstream.base_url, providers=providers, agents=agents)) as twinspan:
            answer = await twinspan.rest.post("/v1/moderations", json={"model": "judge", "input": "a"})
        assert (answer.headers["X-Twinspan-Provider"], answer.headers["X-Twinspan-Attempts"]) == ("two", "2")
        assert other.requests[0].body["model"] == "b"
