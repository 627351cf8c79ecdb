"""Reranking: three forms, of which the client's and the provider's need not be the same."""

import json
from typing import Any

import grpc
import pytest
from twinspan.v1 import content_pb2, rerank_pb2
from twinspan.v1.rerank_pb2_grpc import RerankServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running
from tests.flows.upstream import MODEL, Upstream, text, whole

SCORES = [{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.25}]
COHERE = {"id": "rr-1", "results": SCORES, "meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 7}}}
JINA = {"model": "ranker", "object": "list", "usage": {"total_tokens": 7}, "results": SCORES}
VOYAGE = {"object": "list", "data": SCORES, "model": "ranker", "usage": {"total_tokens": 7}}
DOCUMENTS = ["one", {"text": "two"}, {"title": "three", "n": 1}]
AS_TEXTS = ["one", "two", '{"title":"three","n":1}']


@pytest.mark.parametrize(
    ("style", "answer", "asked"),
    [
        ("cohere", COHERE, {"documents": AS_TEXTS, "top_n": 2}),
        ("jina", JINA, {"documents": DOCUMENTS, "top_n": 2, "return_documents": False}),
        ("voyage", VOYAGE, {"documents": AS_TEXTS, "top_k": 2}),
    ],
    ids=["cohere", "jina", "voyage"],
)
@pytest.mark.parametrize("count", ["top_n", "top_k"])
async def test_a_client_gets_the_form_in_which_it_asked_whichever_the_provider_speaks(
    upstream: Upstream, style: str, answer: dict[str, Any], asked: dict[str, Any], count: str
) -> None:
    upstream.plays(whole(answer))
    providers = {"acme": {"base_url": upstream.base_url, "models": [MODEL], "rerank_style": style}}
    body = {"model": MODEL, "query": "q", "documents": DOCUMENTS, count: 2, "return_documents": True, "x_new": [1]}
    async with running(configuration(upstream.base_url, providers=providers)) as twinspan:
        said = (await twinspan.rest.post("/v1/rerank", json=body)).json()
    assert upstream.requests[0].body == {"model": MODEL, "query": "q", "x_new": [1], **asked}
    second: Any = "two" if count == "top_k" else {"text": "two"}
    first: Any = "one" if count == "top_k" else {"text": "one"}
    scores = [{**SCORES[0], "document": second}, {**SCORES[1], "document": first}]
    others = {name: value for name, value in answer.items() if name not in {"results", "data", "object"}}
    assert said == ({"object": "list", "data": scores, **others} if count == "top_k" else {"results": scores, **others})


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stub_gets_the_same_in_typed_messages(twinspan: Running, upstream: Upstream, channel: str) -> None:
    upstream.plays(whole({**COHERE, "results": [{**SCORES[0], "x_why": "so"}]}))
    request = rerank_pb2.RerankRequest(
        model=MODEL,
        query="q",
        documents=[rerank_pb2.RerankDocument(text="one"), rerank_pb2.RerankDocument(text="two")],
        top_n=1,
        return_documents=True,
    )
    call = RerankServiceStub(getattr(twinspan, channel)).Rerank(request, metadata=twinspan.metadata, timeout=5)
    assert await call == rerank_pb2.RerankResponse(
        id="rr-1",
        results=[
            rerank_pb2.RerankResult(
                index=1, relevance_score=0.75, document=rerank_pb2.RerankDocument(text="two"), extra={"x_why": '"so"'}
            )
        ],
        usage=content_pb2.Usage(input_tokens=7, total_tokens=7),
        extra={"meta": '{"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 7}}'},
    )
    facts = dict(await call.trailing_metadata())
    assert (facts["x-twinspan-provider"], facts["x-twinspan-model"]) == ("acme", MODEL)
    assert upstream.requests[0].body == {"model": MODEL, "query": "q", "documents": ["one", "two"], "top_n": 1}


async def test_coheres_own_interface_is_found_beside_its_compatible_one(upstream: Upstream) -> None:
    upstream.plays(whole(COHERE))
    base = upstream.base_url.removesuffix("/v1")
    providers = {"other": {"base_url": "http://127.0.0.1:1"}, "cohere": {"base_url": f"{base}/compatibility/v1", "api_key": "k"}}
    async with running(configuration(upstream.base_url, providers=providers)) as twinspan:
        answer = await twinspan.rest.post("/v2/rerank", json={"query": "q", "documents": ["a", "b"]})
        (tree,) = await twinspan.spans.trees()
    assert answer.headers["X-Twinspan-Provider"] == "cohere"
    assert (upstream.requests[0].path, upstream.requests[0].body) == ("/v2/rerank", {"query": "q", "documents": ["a", "b"]})
    names = [tree.name]
    while tree.children:
        (tree,) = tree.children
        names.append(tree.name)
    rpc = "twinspan.v1.RerankService/Rerank"
    assert names == ["POST /v2/rerank", rpc, rpc, "rerank", "attempt cohere"]
    assert tree.attributes["url.full"] == f"{base}/v2/rerank"


async def test_a_key_that_may_use_one_path_of_two_may_rerank(upstream: Upstream) -> None:
    upstream.plays(whole(COHERE))
    keys = [{"name": "narrow", "token": "ts-narrow-key-of-the-tests", "roles": ["user"], "allowed_endpoints": ["POST /v2/rerank"]}]
    async with running(configuration(upstream.base_url, api_keys=keys)) as twinspan:
        headers = {"Authorization": "Bearer ts-narrow-key-of-the-tests"}
        body = {"model": MODEL, "query": "q", "documents": ["a", "b"]}
        assert (await twinspan.rest.post("/v2/rerank", json=body, headers=headers)).status_code == 200
        assert (await twinspan.rest.post("/v1/moderations", json={"input": "a"}, headers=headers)).status_code == 403


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"query": None}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": ["a", 7]}, "documents[1]"),
        ({"top_n": 0}, "top_n"),
        ({"top_k": 2**40}, "top_k"),
        ({"top_n": 1, "top_k": 1}, "top_k"),
        ({"top_n": "1"}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
    ],
    ids=str,
)
async def test_bad_input_has_the_same_answer_on_both_surfaces(
    twinspan: Running, upstream: Upstream, change: dict[str, Any], param: str
) -> None:
    body = {"model": MODEL, "query": "q", "documents": ["a"], **change}
    answer = await twinspan.rest.post("/v1/rerank", json=body)
    said = answer.json()
    assert (answer.status_code, said["error_kind"], said["error"]["param"]) == (400, "invalid_request", param)
    request = rerank_pb2.RerankRequest(openai_json=json.dumps(body).encode())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await RerankServiceStub(twinspan.network).Rerank(request, metadata=twinspan.metadata, timeout=5)
    failure = errors.of_rpc(raised.value)
    assert (failure.kind_name, failure.param, failure.message) == ("invalid_request", param, said["error"]["message"])
    assert upstream.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        text("<html>"),
        whole({"id": "x"}),
        whole({"results": "x"}),
        whole({"results": [{"index": 0}]}),
        whole({"results": [{"index": 7, "relevance_score": 1}]}),
        whole({"results": [{"index": -1, "relevance_score": 1}]}),
    ],
    ids=["a page", "no results", "no list", "no score", "no such document", "none before the first"],
)
async def test_an_answer_without_scores_is_the_providers_fault(twinspan: Running, upstream: Upstream, answer: Any) -> None:
    upstream.plays(answer)
    said = await twinspan.rest.post("/v1/rerank", json={"model": MODEL, "query": "q", "documents": ["a"]})
    assert (said.status_code, said.json()["error_kind"]) == (502, "provider_error")
    assert twinspan.complaints() == []
