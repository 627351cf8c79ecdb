"""The official SDK, through a gateway, to a provider that was not written for this suite: aimock."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from twinspan.v1 import embeddings_pb2
from twinspan.v1.embeddings_pb2_grpc import EmbeddingsServiceStub

from tests.clients.conftest import NODE
from tests.flows.running import Running, configuration, running

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("node") is None or not (NODE / "node_modules").is_dir(), reason="Node is not installed"),
]

MODEL, CHAT_MODEL, NATIVE = "text-embedding-3-small", "gpt-4o-mini", "gpt-4.1-mini"
CAN = ["stream_options", "tool_calls", "embeddings", "moderations"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aimock() -> AsyncIterator[str]:
    """Runs aimock, and gives its address."""
    process = await asyncio.create_subprocess_exec(
        "node", NODE / "aimock.mjs", cwd=NODE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            url = (await process.stdout.readline()).decode().strip()
        yield url
    finally:
        process.stdin.close()
        await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twinspan(aimock: str) -> AsyncIterator[Running]:
    """Runs a gateway over aimock, which takes 4 inputs at once as far as the gateway knows."""
    acme = {"base_url": f"{aimock}/v1", "api_key": "k", "models": [MODEL, CHAT_MODEL], "max_embedding_inputs": 4}
    native = {"base_url": f"{aimock}/v1", "api_key": "k", "models": [NATIVE], "capabilities": ["stream_options", "responses"]}
    providers = {"acme": acme | {"capabilities": CAN}, "native": native}
    async with running(configuration(aimock, providers=providers)) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def keeping(aimock: str, tmp_path: Path) -> AsyncIterator[Running]:
    """Runs a gateway whose files and batches are with aimock."""
    acme = {"base_url": f"{aimock}/v1", "api_key": "k", "models": [CHAT_MODEL]}
    kept = {"files": {"dir": str(tmp_path), "backend": "acme"}, "batches": {"backend": "acme"}}
    async with running(configuration(aimock, providers={"acme": acme}, **kept)) as started:
        yield started


@pytest.mark.parametrize("dimensions", [{}, {"dimensions": 8}], ids=["all dimensions", "8 dimensions"])
async def test_embeddings_are_the_same_in_every_form(twinspan: Running, dimensions: dict[str, Any]) -> None:
    """The SDK asks for base64 unless it is told otherwise, and aimock answers in numbers all the same."""
    texts = [f"text {number}" for number in range(10)]
    async with twinspan.openai() as client:
        usual = await client.embeddings.create(model=MODEL, input=texts, **dimensions)
        numbers = await client.embeddings.create(model=MODEL, input=texts, encoding_format="float", **dimensions)
    request = embeddings_pb2.EmbedRequest(model=MODEL, input=texts, **dimensions)
    typed = await EmbeddingsServiceStub(twinspan.network).Embed(request, metadata=twinspan.metadata, timeout=5)
    vectors = [list(item.embedding) for item in typed.data]
    assert [item.index for item in usual.data] == list(range(10))
    assert [item.embedding for item in usual.data] == vectors
    for item, vector in zip(numbers.data, vectors, strict=True):
        assert item.embedding == pytest.approx(vector, rel=1e-6)
    assert {len(vector) for vector in vectors} == {dimensions.get("dimensions", 1536)}
    assert len({tuple(vector) for vector in vectors}) == 10
    assert twinspan.complaints() == []


async def test_a_batch_of_embeddings_gets_what_the_same_requests_get(twinspan: Running) -> None:
    bodies = [{"model": MODEL, "input": f"text {number}", "encoding_format": "float"} for number in range(20)]
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/embeddings", "body": body} for number, body in enumerate(bodies)
    ]
    async with twinspan.openai() as client:
        content = "\n".join(map(json.dumps, lines)).encode()
        file = await client.files.create(file=("lines.jsonl", content), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        async with asyncio.timeout(10):
            while batch.status != "completed":
                await asyncio.sleep(0.02)
                batch = await client.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        answered = map(json.loads, (await client.files.content(batch.output_file_id)).text.splitlines())
        found = {item["custom_id"]: item["response"]["body"]["data"][0]["embedding"] for item in answered}
        for number, body in enumerate(bodies):
            once = await twinspan.rest.post("/v1/embeddings", json=body)
            assert found[str(number)] == once.json()["data"][0]["embedding"]
    assert twinspan.complaints() == []


@pytest.mark.parametrize("model", [NATIVE, MODEL], ids=["by its Responses API", "by its chat"])
async def test_the_sdk_reads_a_response_whole_and_streamed(twinspan: Running, model: str) -> None:
    async with twinspan.openai() as client:
        answer = await client.responses.create(model=model, input="Say hello.")
        stream = await client.responses.create(model=model, input="Say hello.", stream=True)
        events = [event async for event in stream]
    assert answer.output_text == "Hello from aimock."
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == answer.output_text
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert twinspan.complaints() == []


async def test_the_sdk_chats_whole_and_streamed(twinspan: Running) -> None:
    asked: Any = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
    async with twinspan.openai() as client:
        whole = await client.chat.completions.create(**asked)
        stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    assert whole.choices[0].message.content == "Hello from aimock."
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "Hello from aimock."
    assert chunks[-1].usage is not None
    assert twinspan.complaints() == []


async def test_the_sdk_asks_for_a_moderation(twinspan: Running) -> None:
    async with twinspan.openai() as client:
        answer = await client.moderations.create(input=["Say hello."])
    assert [result.flagged for result in answer.results] == [False]
    assert twinspan.complaints() == []


async def test_the_sdk_keeps_a_file_and_runs_a_batch_at_aimock(keeping: Running) -> None:
    body = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
    line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()
    async with keeping.openai() as client:
        file = await client.files.create(file=("lines.jsonl", line), purpose="batch")
        assert (await client.files.content(file.id)).content == line
        batch = await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        async with asyncio.timeout(10):
            while batch.status != "completed":
                await asyncio.sleep(0.02)
                batch = await client.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        assert (await client.files.content(batch.output_file_id)).text
        assert [item.id async for item in client.batches.list()] == [batch.id]
        assert {item.id async for item in client.files.list()} == {file.id, batch.output_file_id}
        assert (await client.files.delete(file.id)).deleted
    assert keeping.complaints() == []


async def test_the_models_that_it_lists_are_found_and_answer(aimock: str) -> None:
    sections = configuration(aimock, providers={"acme": {"base_url": f"{aimock}/v1", "api_key": "k"}}, discovery={"enabled": True})
    async with running(sections) as found, httpx.AsyncClient(base_url=aimock) as direct:
        theirs = [model["id"] for model in (await direct.get("/v1/models", headers={"Authorization": "Bearer k"})).json()["data"]]
        async with found.openai() as client:
            assert [model.id async for model in client.models.list()] == theirs
            assert theirs
            messages = [{"role": "user", "content": "Say hello."}]
            answer = await found.chat({"model": theirs[0], "stream": False, "messages": messages})
        assert answer.json()["choices"][0]["message"]["content"] == "Hello from aimock."
        assert found.complaints() == []
