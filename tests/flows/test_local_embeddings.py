"""The embedded embedding model behind a whole gateway that has no provider but the embedded ones."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from twinspan.v1 import embeddings_pb2
from twinspan.v1.embeddings_pb2_grpc import EmbeddingsServiceStub

from bridge import errors
from tests.flows.running import TOKEN, Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "all-minilm-l6-v2"
CHAT_MODEL = "smollm2-135m-instruct"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local() -> AsyncIterator[Running]:
    server = {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "log_level": "warning", "drain_seconds": 1}
    async with running({"server": server, "client_token": TOKEN}) as started:
        yield started


def cosine(one: Iterable[float], other: Iterable[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_the_official_sdk_and_a_stub_get_the_same_vectors(local: Running) -> None:
    texts = ["That is a happy person", "That is a very happy person", "Today is a sunny day"]
    async with local.openai() as client:
        raw = await client.embeddings.with_raw_response.create(model=MODEL, input=texts)
    answer = raw.parse()
    assert raw.headers["X-Twinspan-Cost-Usd"] == "0"
    request = embeddings_pb2.EmbedRequest(model=MODEL, input=texts)
    typed = await EmbeddingsServiceStub(local.network).Embed(request, metadata=local.metadata, timeout=5)
    assert [item.embedding for item in answer.data] == [list(item.embedding) for item in typed.data]
    person, very, sunny = (item.embedding for item in typed.data)
    assert cosine(person, very) > 0.9
    assert cosine(person, sunny) < 0.4
    assert answer.usage.prompt_tokens == typed.usage.input_tokens == 22


async def test_a_large_batch_comes_back_in_order(local: Running) -> None:
    texts = [f"Number {number}." for number in range(100)]
    together = (await local.rest.post("/v1/embeddings", json={"model": MODEL, "input": texts})).json()
    alone = [
        (await local.rest.post("/v1/embeddings", json={"model": MODEL, "input": texts[number]})).json() for number in (0, 50, 99)
    ]
    assert [item["index"] for item in together["data"]] == list(range(100))
    for number, answer in zip((0, 50, 99), alone, strict=True):
        assert cosine(answer["data"][0]["embedding"], together["data"][number]["embedding"]) > 0.99999


async def test_the_gateway_answers_others_while_the_model_computes(local: Running) -> None:
    body = {"model": MODEL, "input": ["word " * 300] * 8}
    computing = asyncio.create_task(local.rest.post("/v1/embeddings", json=body))
    answers = 0
    while not computing.done():
        assert (await local.rest.get("/healthz")).status_code == 200
        answers += 1
    assert (await computing).status_code == 200
    assert answers >= 10


async def test_it_is_listed_beside_the_chat_model(local: Running) -> None:
    listed = (await local.rest.get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == [CHAT_MODEL, MODEL]


async def test_the_model_that_embeds_does_not_chat(local: Running) -> None:
    answer = await local.chat({"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]})
    assert (answer.status_code, answer.json()["error_kind"], answer.json()["error"]["param"]) == (400, "invalid_request", "model")


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"model": CHAT_MODEL}, "model_not_found", "model"),
        ({"dimensions": 100}, "invalid_request", "dimensions"),
        ({"input": [30522]}, "invalid_request", "input"),
    ],
    ids=["the chat model", "other dimensions", "tokens of another model"],
)
async def test_what_it_cannot_do_has_the_same_answer_on_both_surfaces(
    local: Running, fields: dict[str, Any], kind: str, param: str
) -> None:
    body = {"model": MODEL, "input": "a", **fields}
    answer = await local.rest.post("/v1/embeddings", json=body)
    assert (answer.json()["error_kind"], answer.json()["error"]["param"]) == (kind, param)
    given = body.pop("input")
    typed = {"input": [given]} if isinstance(given, str) else {"input_tokens": [embeddings_pb2.TokenList(tokens=given)]}
    request = embeddings_pb2.EmbedRequest(**{**body, **typed})
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await EmbeddingsServiceStub(local.network).Embed(request, metadata=local.metadata, timeout=5)
    assert errors.of_rpc(raised.value).kind_name == kind
