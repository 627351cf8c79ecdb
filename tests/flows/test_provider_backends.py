"""Files and batches that a provider keeps: the provider here is another gateway, which keeps its own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from openai import AsyncOpenAI
from twinspan.v1 import batches_pb2, files_pb2
from twinspan.v1.batches_pb2_grpc import BatchesServiceStub
from twinspan.v1.files_pb2_grpc import FilesServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running, spans_of
from tests.flows.upstream import MODEL, Upstream, says, text, whole

ANN, BEN, BOUND = "ts-the-key-of-ann-0001", "ts-the-key-of-ben-0001", "ts-a-key-with-an-agent"
KEYS = [
    {"name": "ann", "token": ANN},
    {"name": "ben", "token": BEN},
    {"name": "bound", "token": BOUND, "allowed_agents": [MODEL]},
    {"name": "chats", "token": "ts-chats-and-no-batches", "allowed_endpoints": ["POST /v1/batches", "POST /v1/files"]},
]
OWN = "ts-the-key-of-the-gateway"
LINE = {
    "custom_id": "1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]},
}


def over(base_url: str, directory: Path, **more: Any) -> dict[str, Any]:
    """Returns the configuration of a gateway whose files and batches are with the provider there."""
    providers = {"remote": {"base_url": base_url, "api_key": OWN, "models": [MODEL]}}
    kept = {"files": {"dir": str(directory), "backend": "remote"}, "batches": {"backend": "remote"}}
    return configuration(base_url, providers=providers, api_keys=KEYS, **{**kept, **more})


@asynccontextmanager
async def two(upstream: Upstream, directory: Path) -> AsyncIterator[tuple[Running, Running]]:
    """Runs a gateway over another one, and gives both."""
    kept = configuration(
        upstream.base_url, files={"dir": str(directory / "far")}, api_keys=[{"name": "near", "token": OWN}], debug={}
    )
    async with AsyncExitStack() as stack:
        far = await stack.enter_async_context(running(kept))
        near = await stack.enter_async_context(running(over(f"{far.url}/v1", directory / "near")))
        yield near, far


@pytest.fixture
async def pair(upstream: Upstream, tmp_path: Path) -> AsyncIterator[tuple[Running, Running]]:
    async with two(upstream, tmp_path) as gateways:
        yield gateways
        assert gateways[0].complaints() == []


async def upload(sdk: AsyncOpenAI, content: bytes, purpose: Any = "user_data") -> openai.types.FileObject:
    return await sdk.files.create(file=("lines 1.jsonl", content), purpose=purpose)


async def test_the_sdk_keeps_files_with_the_provider(pair: tuple[Running, Running], tmp_path: Path) -> None:
    near, far = pair
    content = os.urandom(3_000_000)
    async with near.openai(ANN) as sdk, far.openai(OWN) as direct:
        file = await upload(sdk, content)
        assert (file.bytes, file.filename, file.purpose) == (3_000_000, "lines 1.jsonl", "user_data")
        assert await direct.files.retrieve(file.id) == file == await sdk.files.retrieve(file.id)
        assert (await sdk.files.content(file.id)).content == content
        expiring = await sdk.files.create(
            file=("b", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200}
        )
        assert expiring.expires_at == expiring.created_at + 7200
        assert [item.id async for item in sdk.files.list()] == [expiring.id, file.id]
        assert [item.id async for item in sdk.files.list(order="asc", limit=1)] == [file.id, expiring.id]
        assert [item.id async for item in sdk.files.list(purpose="batch")] == [expiring.id]
        assert (await sdk.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await direct.files.retrieve(file.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.files.content(file.id)
    assert list((tmp_path / "near/providers/outgoing").iterdir()) == []


async def test_a_part_of_a_file_is_all_that_is_fetched_of_it(pair: tuple[Running, Running]) -> None:
    near, far = pair
    async with near.openai(ANN) as sdk:
        file = await upload(sdk, bytes(range(256)) * 100)
    spans_of(far)
    headers = {"Authorization": f"Bearer {ANN}", "Range": "bytes=250-259"}
    answer = await near.rest.get(f"/v1/files/{file.id}/content", headers=headers)
    assert (answer.status_code, answer.content) == (206, bytes([*range(250, 256), *range(4)]))
    assert answer.headers["Content-Range"] == "bytes 250-259/25600"


async def test_a_provider_that_knows_no_ranges_still_gives_a_part(upstream: Upstream, tmp_path: Path) -> None:
    file = {"id": "file-1", "bytes": 10, "created_at": 1, "filename": "a", "purpose": "user_data"}
    async with running(over(upstream.base_url, tmp_path)) as near, near.openai(ANN) as sdk:
        upstream.plays(whole(file))
        await upload(sdk, b"0123456789")
        upstream.plays(whole(file), whole(file), text("0123456789"))
        headers = {"Authorization": f"Bearer {ANN}", "Range": "bytes=3-5"}
        answer = await near.rest.get("/v1/files/file-1/content", headers=headers)
    assert (answer.status_code, answer.content) == (206, b"345")
    assert upstream.requests[-1].headers["Range"] == "bytes=3-5"


async def test_a_key_reaches_what_it_made_and_nothing_else(pair: tuple[Running, Running]) -> None:
    near, far = pair
    async with near.openai(ANN) as ann, near.openai(BEN) as ben, near.openai() as admin, far.openai(OWN) as direct:
        file = await upload(ann, b"ann's")
        past = await upload(direct, b"made past the gateway")
        spans_of(far)
        for id_ in (file.id, past.id, "..%2f..", "../models"):
            for ask in (ben.files.retrieve, ben.files.content, ben.files.delete):
                with pytest.raises(openai.NotFoundError):
                    await ask(id_)
        with pytest.raises(openai.NotFoundError):
            await ben.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        assert (await ben.files.list()).data == []
        assert spans_of(far) == []  # nobody asked the provider for what is not Ben's
        assert [item.id async for item in admin.files.list()] == [file.id]
        assert (await admin.files.content(file.id)).content == b"ann's"


async def test_who_made_what_outlives_the_process(upstream: Upstream, tmp_path: Path) -> None:
    async with two(upstream, tmp_path) as (near, _), near.openai(ANN) as sdk:
        file = await upload(sdk, b"kept")
    async with two(upstream, tmp_path) as (near, _), near.openai(ANN) as sdk, near.openai(BEN) as ben:
        assert (await sdk.files.content(file.id)).content == b"kept"
        with pytest.raises(openai.NotFoundError):
            await ben.files.content(file.id)


async def test_the_sdk_has_the_provider_run_a_batch(pair: tuple[Running, Running], upstream: Upstream) -> None:
    near, _ = pair
    upstream.plays(says("Hello."))
    async with near.openai(ANN) as sdk, near.openai(BEN) as ben:
        file = await upload(sdk, json.dumps(LINE).encode(), "batch")
        batch = await sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
        )
        assert batch.metadata == {"a": "b"}
        async with asyncio.timeout(10):
            while batch.status != "completed":
                await asyncio.sleep(0.02)
                batch = await sdk.batches.retrieve(batch.id)
        assert batch.request_counts is not None
        assert (batch.request_counts.total, batch.request_counts.completed) == (1, 1)
        assert batch.output_file_id is not None
        answered = json.loads((await sdk.files.content(batch.output_file_id)).text)
        assert answered["response"]["body"]["choices"][0]["message"]["content"] == "Hello."
        output = await sdk.files.retrieve(batch.output_file_id)
        assert [item async for item in sdk.files.list()] == [output, await sdk.files.retrieve(file.id)]
        assert [item async for item in sdk.batches.list()] == [batch]
        for ask in (ben.batches.retrieve, ben.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await ask(batch.id)
        with pytest.raises(openai.NotFoundError):
            await ben.files.content(batch.output_file_id)
        with pytest.raises(openai.ConflictError):
            await sdk.batches.cancel(batch.id)


async def test_a_batch_under_way_is_cancelled_at_the_provider(pair: tuple[Running, Running], upstream: Upstream) -> None:
    near, far = pair
    async with near.openai(ANN) as sdk, far.openai(OWN) as direct:
        file = await upload(sdk, json.dumps(LINE).encode(), "batch")
        upstream.plays(whole({}, status=429, retry_after="60"))
        batch = await sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        cancelled = await sdk.batches.cancel(batch.id)
        assert cancelled.status in {"cancelling", "cancelled"}
        async with asyncio.timeout(10):
            while cancelled.status != "cancelled":
                await asyncio.sleep(0.02)
                cancelled = await sdk.batches.retrieve(batch.id)
        assert (await direct.batches.retrieve(batch.id)).status == "cancelled"


@pytest.mark.parametrize("token", [BOUND, "ts-chats-and-no-batches"])
async def test_a_batch_that_nobody_sees_is_only_for_who_may_do_all_of_it(pair: tuple[Running, Running], token: str) -> None:
    near, far = pair
    async with near.openai(token) as sdk:
        file = await upload(sdk, json.dumps(LINE).encode(), "batch")
        spans_of(far)
        with pytest.raises(openai.PermissionDeniedError):
            await sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        assert spans_of(far) == []


async def test_the_providers_own_errors_come_back_as_they_are(pair: tuple[Running, Running]) -> None:
    near, _ = pair
    async with near.openai(ANN) as sdk:
        with pytest.raises(openai.BadRequestError) as raised:
            await upload(sdk, b"x", "a-purpose-of-nobody")
        assert raised.value.param == "purpose"
        file = await upload(sdk, b"x")
        with pytest.raises(openai.BadRequestError) as raised:
            await sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        assert raised.value.param == "input_file_id"


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (text("<html>", status=502), 502, "provider_error"),
        (whole({}), 502, "provider_error"),
        (whole({"id": "../../models"}), 502, "provider_error"),
        (text("nothing"), 502, "provider_error"),
        (text("", status=302, Location="http://127.0.0.1:9/"), 502, "provider_error"),
        (whole({"error": {"message": "upstream key sk-x"}}, status=401), 401, "auth_failed"),
    ],
)
async def test_what_a_provider_answers_amiss(upstream: Upstream, tmp_path: Path, answer: Any, status: int, kind: str) -> None:
    upstream.plays(answer)
    async with running(over(upstream.base_url, tmp_path)) as near:
        form = {"files": {"file": ("a", b"content")}, "data": {"purpose": "user_data"}}
        got = await near.rest.post("/v1/files", **form)  # type: ignore[arg-type]  # as httpx takes it
        assert (got.status_code, got.json()["error_kind"]) == (status, kind)
        assert (await near.rest.get("/v1/files")).json()["data"] == []
        assert list((tmp_path / "providers/outgoing").iterdir()) == []


async def test_a_file_that_the_provider_has_no_more_is_nobodys(pair: tuple[Running, Running]) -> None:
    near, far = pair
    async with near.openai(ANN) as sdk, far.openai(OWN) as direct:
        file = await upload(sdk, b"x")
        await direct.files.delete(file.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.files.retrieve(file.id)
        assert (await sdk.files.list()).data == []


async def test_every_surface_reaches_them_alike(pair: tuple[Running, Running], upstream: Upstream) -> None:
    near, _ = pair
    upstream.plays(says("Hello."))
    for channel in (near.network, near.inprocess):
        files, batches = FilesServiceStub(channel), BatchesServiceStub(channel)
        pieces = [
            files_pb2.FilesServiceUploadRequest(content=json.dumps(LINE).encode()),
            files_pb2.FilesServiceUploadRequest(description=files_pb2.FileDescription(filename="a", purpose="batch")),
        ]
        made = await files.Upload(iter(pieces), metadata=near.metadata)
        shown = await near.rest.get(f"/v1/files/{made.file.id}")
        assert (shown.json()["bytes"], shown.json()["filename"]) == (made.file.bytes, "a")
        downloaded = [
            message
            async for message in files.Download(files_pb2.FilesServiceDownloadRequest(id=made.file.id), metadata=near.metadata)
        ]
        assert b"".join(message.content for message in downloaded) == json.dumps(LINE).encode()
        order = batches_pb2.BatchesServiceCreateRequest(
            input_file_id=made.file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        batch = (await batches.Create(order, metadata=near.metadata)).batch
        assert (await near.rest.get(f"/v1/batches/{batch.id}")).json()["input_file_id"] == made.file.id
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await files.Get(files_pb2.FilesServiceGetRequest(id="nobodys"), metadata=near.metadata)
        assert errors.of_rpc(raised.value).kind_name == "not_found"


async def test_a_request_at_the_provider_is_a_span_of_the_callers_trace(pair: tuple[Running, Running]) -> None:
    near, far = pair
    async with near.openai(ANN) as sdk:
        near.spans.ended.clear()
        await upload(sdk, b"x")
    [[server]] = [[span for span in near.spans.ended if span.name == "POST /v1/files"]]
    attempts = [span for span in near.spans.ended if span.name == "attempt remote"]
    assert [(span.attributes or {})["http.response.status_code"] for span in attempts] == [200]
    traces = {span.context.trace_id for span in (server, *attempts, *far.spans.ended) if span.context}
    assert len(traces) == 1
