"""Batches over both surfaces: what the official SDK does with them, how each can end, and with whose rights their lines run."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI
from openai.types import Batch
from twinspan.v1 import batches_pb2, chat_pb2, content_pb2
from twinspan.v1.batches_pb2_grpc import BatchesServiceStub
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from bridge import errors
from bridge.dialects import batches as batches_dialect
from tests.flows.running import TOKEN, Running, running_over, spans_of
from tests.flows.upstream import MODEL, Request, Script, Upstream, hangs, says, text, whole

CHAT = "/v1/chat/completions"
ANN, BEN, BOUND, NARROW = "ts-the-key-of-ann-0001", "ts-the-key-of-ben-0001", "ts-a-key-bound-to-agents", "ts-a-key-without-chat"
KEYS = [
    {"name": "ann", "token": ANN},
    {"name": "ben", "token": BEN},
    {"name": "bound", "token": BOUND, "allowed_agents": ["another"]},
    {"name": "narrow", "token": NARROW, "allowed_endpoints": ["POST /v1/*", "GET /v1/*/*", "GET /v1/files/*/content"]},
]
SLOTS = 3


@pytest.fixture
async def twinspan(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Running]:
    sections: dict[str, Any] = {"files": {"dir": str(tmp_path / "files")}, "batches": {"max_concurrency": SLOTS}, "api_keys": KEYS}
    async with running_over(upstream, **sections) as started:
        yield started
        assert started.complaints() == []


def line(number: int, **changes: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"line {number}"}], **changes.pop("body", {})}
    return {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": body, **changes}


def written(*lines: Mapping[str, Any]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in lines)


async def begin(sdk: AsyncOpenAI, content: bytes, **options: Any) -> Batch:
    file = await sdk.files.create(file=("lines.jsonl", content), purpose="batch")
    asked: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h", **options}
    return await sdk.batches.create(input_file_id=file.id, **asked)


async def ended(sdk: AsyncOpenAI, batch: Batch, *statuses: str) -> Batch:
    async with asyncio.timeout(10):
        while batch.status not in (statuses or ("completed", "failed", "expired", "cancelled")):
            await asyncio.sleep(0.01)
            batch = await sdk.batches.retrieve(batch.id)
    return batch


async def read(sdk: AsyncOpenAI, file: str | None) -> dict[str, Any]:
    """Returns the lines of an output file by their custom ids."""
    if file is None:
        return {}
    found = [json.loads(item) for item in (await sdk.files.content(file)).text.splitlines()]
    assert len({item["custom_id"] for item in found}) == len({item["id"] for item in found}) == len(found)
    return {item["custom_id"]: item for item in found}


async def test_the_sdk_runs_a_batch_to_its_end(twinspan: Running) -> None:
    lines = [line(number) for number in range(20)]
    lines[7] = line(7, body={"model": "nobody-has-this"})
    lines[8] = line(8, body={"temperature": "hot"})
    async with twinspan.openai(ANN) as sdk:
        batch = await begin(sdk, written(*lines[:10]) + b"\r\n\n" + written(*lines[10:])[:-1], metadata={"job": "nightly"})
        assert (batch.object, batch.status, batch.metadata) == ("batch", "validating", {"job": "nightly"})
        assert batch.expires_at == batch.created_at + 86_400
        batch = await ended(sdk, batch)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.model_dump() == {"total": 20, "completed": 18, "failed": 2}
        assert None not in (batch.in_progress_at, batch.finalizing_at, batch.completed_at)
        output, failures = await read(sdk, batch.output_file_id), await read(sdk, batch.error_file_id)
        assert output.keys() | failures.keys() == {f"r{number}" for number in range(20)}
        answer = output["r0"]
        assert (answer["error"], answer["response"]["status_code"]) == (None, 200)
        assert answer["response"]["body"]["choices"][0]["message"]["content"] == "Hello there."
        assert answer["response"]["request_id"].startswith("req_")
        assert failures.keys() == {"r7", "r8"}
        assert (failures["r7"]["error"], failures["r7"]["response"]["status_code"]) == (None, 404)
        assert failures["r7"]["response"]["body"]["error"]["code"] == "model_not_found"
        assert failures["r8"]["response"]["body"]["error"]["param"] == "temperature"
        file = await sdk.files.retrieve(batch.output_file_id or "")
        assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
        again = await begin(sdk, written(line(1)), output_expires_after={"anchor": "created_at", "seconds": 3600})
        again = await ended(sdk, again)
        file = await sdk.files.retrieve(again.output_file_id or "")
        assert file.expires_at == file.created_at + 3600
        assert again.error_file_id is None
        assert [item.id async for item in sdk.batches.list(limit=1)] == [again.id, batch.id]
    async with twinspan.openai(BEN) as ben, twinspan.openai() as admin:
        assert [item.id async for item in ben.batches.list()] == []
        for steal in (ben.batches.retrieve, ben.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await steal(batch.id)
        assert [item.id async for item in admin.batches.list()] == [again.id, batch.id]


VERDICT = {"id": "modr-1", "model": MODEL, "results": [{"flagged": False, "categories": {}, "category_scores": {}}]}
VECTOR = {
    "object": "list",
    "model": MODEL,
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}


@pytest.mark.parametrize(("url", "answer"), [("/v1/moderations", VERDICT), ("/v1/embeddings", VECTOR)])
async def test_the_lines_may_be_for_any_route_of_inference(
    twinspan: Running, upstream: Upstream, url: str, answer: dict[str, Any]
) -> None:
    upstream.plays(whole(answer))
    async with twinspan.openai() as sdk:
        asked = {"custom_id": "r1", "method": "POST", "url": url, "body": {"model": MODEL, "input": "Hello"}}
        batch = await ended(sdk, await begin(sdk, written(asked), endpoint=url))
        found = {**await read(sdk, batch.output_file_id), **await read(sdk, batch.error_file_id)}
        assert found["r1"]["response"]["body"] == answer
    assert upstream.requests[0].path == url


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ("empty_file", None, None)),
        (b"\n \n", ("empty_file", None, None)),
        (written(line(1)) + b"{not json\n", ("invalid_json_line", 2, None)),
        (b'\n{"custom_id": "\xff"}\n', ("invalid_json_line", 2, None)),
        (written(line(1), {"custom_id": "r2"}), ("missing_required_parameter", 2, "method")),
        (written(line(1, custom_id=5)), ("invalid_request", 1, "custom_id")),
        (written(line(1, custom_id="")), ("invalid_custom_id", 1, "custom_id")),
        (written(line(1), line(2, custom_id="r1")), ("duplicate_custom_id", 2, "custom_id")),
        (written(line(1, method="GET")), ("invalid_method", 1, "method")),
        (written(line(1, url="/v1/embeddings")), ("mismatched_endpoint", 1, "url")),
        (written({**line(1), "body": []}), ("invalid_body", 1, "body")),
        (written(line(1, body={"stream": True})), ("invalid_body", 1, "body.stream")),
        (b"[" * 100_000, ("invalid_request", 1, None)),
        (b'{"custom_id": "a", "body": ' + b"[" * 100_000, ("invalid_json_line", 1, None)),
        (b'{"custom_id": "' + b"a" * 11_000_000, ("line_too_long", None, None)),
    ],
    ids=range(15),
)
async def test_an_input_that_is_wrong_fails_the_batch_before_anything_ran(
    twinspan: Running, upstream: Upstream, content: bytes, problem: tuple[str, int | None, str | None]
) -> None:
    async with twinspan.openai() as sdk:
        batch = await ended(sdk, await begin(sdk, content))
        assert batch.status == "failed"
        assert batch.failed_at is not None
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert [(error.code, error.line, error.param) for error in batch.errors.data] == [problem]
        assert (batch.output_file_id, batch.error_file_id) == (None, None)
        with pytest.raises(openai.ConflictError):
            await sdk.batches.cancel(batch.id)
    assert upstream.requests == []


async def test_an_answer_that_is_spread_over_lines_becomes_one(twinspan: Running, upstream: Upstream) -> None:
    answer = {"id": "modr-1", "model": MODEL, "results": [{"flagged": False, "categories": {}, "category_scores": {}}], "x": "a\nb"}
    upstream.plays(text(json.dumps(answer, indent=2).replace("\n", "\r\n"), content_type="application/json"))
    url = "/v1/moderations"
    async with twinspan.openai() as sdk:
        lines = [line(number, url=url, body={"model": MODEL, "input": "Hello"}) for number in range(2)]
        batch = await ended(sdk, await begin(sdk, written(*lines), endpoint=url))
        output = await read(sdk, batch.output_file_id)
        assert [item["response"]["body"] for item in output.values()] == [answer, answer]


async def test_a_batch_that_is_cancelled_stops_and_keeps_what_it_has(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(says("one"), says("two"), hangs())
    async with twinspan.openai() as sdk:
        batch = await begin(sdk, written(*(line(number) for number in range(50))))
        await upstream.arrived(2 + SLOTS)
        while (await sdk.batches.retrieve(batch.id)).request_counts.completed < 2:  # type: ignore[union-attr]  # always given
            pass
        batch = await sdk.batches.cancel(batch.id)
        assert batch.status in {"cancelling", "cancelled"}
        batch = await ended(sdk, batch)
        assert batch.status == "cancelled"
        assert None not in (batch.cancelling_at, batch.cancelled_at)
        assert len(await read(sdk, batch.output_file_id)) == 2
        left = await read(sdk, batch.error_file_id)
        assert len(left) == 48
        assert {(item["response"], item["error"]["code"]) for item in left.values()} == {(None, "batch_cancelled")}
        assert (await sdk.batches.cancel(batch.id)).status == "cancelled"
        async with asyncio.timeout(5):
            await asyncio.gather(*(request.gone.wait() for request in upstream.requests[2:]))
        assert len(upstream.requests) == 2 + SLOTS


async def test_a_batch_whose_window_ends_keeps_what_it_has(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(says("one"), hangs())
    async with twinspan.openai() as sdk:
        batch = await ended(sdk, await begin(sdk, written(*(line(number) for number in range(9))), completion_window="1s"))
        assert batch.status == "expired"
        assert batch.expired_at is not None
        assert len(await read(sdk, batch.output_file_id)) == 1
        left = await read(sdk, batch.error_file_id)
        assert {(item["response"], item["error"]["code"]) for item in left.values()} == {(None, "batch_expired")}
        assert len(left) == 8


async def test_a_line_that_is_told_to_come_later_does(twinspan: Running, upstream: Upstream) -> None:
    limited = whole({"error": {"message": "Slow down.", "type": "rate_limit_error"}}, status=429, retry_after="0.01")
    upstream.plays(limited, limited, says("at last"))
    async with twinspan.openai() as sdk:
        batch = await ended(sdk, await begin(sdk, written(line(1))))
        assert (await read(sdk, batch.output_file_id))["r1"]["response"]["body"]["choices"][0]["message"]["content"] == "at last"
    assert len(upstream.requests) == 3


async def test_batches_share_their_slots_and_leave_everyone_else_alone(twinspan: Running, upstream: Upstream) -> None:
    free, under_way, most = asyncio.Event(), 0, 0

    async def counts(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        nonlocal under_way, most
        if request.body["messages"][0]["content"] == "Hello":
            return await says("at once")(http, request)
        under_way += 1
        most = max(most, under_way)
        await free.wait()
        under_way -= 1
        return await says("later")(http, request)

    script: Script = counts
    upstream.plays(script)
    async with twinspan.openai() as sdk:
        batches = [await begin(sdk, written(*(line(number) for number in range(10)))) for _ in range(2)]
        await upstream.arrived(SLOTS)
        answer = await sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
        assert answer.choices[0].message.content == "at once"
        free.set()
        assert [(await ended(sdk, batch)).status for batch in batches] == ["completed"] * 2
    assert most == SLOTS


async def test_the_input_may_be_deleted_while_the_batch_runs(twinspan: Running, upstream: Upstream, tmp_path: Path) -> None:
    free = asyncio.Event()

    async def waits(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        await free.wait()
        return await says("later")(http, request)

    upstream.plays(waits)
    async with twinspan.openai() as sdk:
        batch = await begin(sdk, written(*(line(number) for number in range(10))))
        await upstream.arrived()
        await sdk.files.delete(batch.input_file_id)
        free.set()
        batch = await ended(sdk, batch)
        assert len(await read(sdk, batch.output_file_id)) == 10
    assert list((tmp_path / "files/batches").glob("*.jsonl")) == []


@pytest.mark.parametrize(("token", "status"), [(ANN, 200), (BOUND, 403), (NARROW, 403)])
async def test_each_line_runs_with_the_rights_of_the_key_that_made_the_batch(twinspan: Running, token: str, status: int) -> None:
    async with twinspan.openai(token) as sdk:
        batch = await ended(sdk, await begin(sdk, written(line(1))))
        found = {**await read(sdk, batch.output_file_id), **await read(sdk, batch.error_file_id)}
        assert found["r1"]["response"]["status_code"] == status


async def test_nobody_can_pretend_to_be_a_batch(twinspan: Running, upstream: Upstream) -> None:
    forged = {"x-twinspan-on-behalf-of": "client_token"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    for token in (BOUND, "none"):
        headers = {"Authorization": f"Bearer {token}", **forged}
        assert (await twinspan.rest.post(CHAT, json=body, headers=headers)).status_code in {401, 403}
        for channel in (twinspan.inprocess, twinspan.network):
            chat = chat_pb2.ChatRequest(model=MODEL, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])
            stub: Any = ChatServiceStub(channel)
            metadata = (("authorization", f"Bearer {token}"), *forged.items())
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Complete(chat_pb2.CompleteRequest(chat=chat), metadata=metadata)
            assert raised.value.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
    assert upstream.requests == []


# Parity: the same calls over REST, the in-process channel and the network.


class Surface:
    """Batches over one surface, with answers in one form."""

    def __init__(self, twinspan: Running, name: str) -> None:
        self._rest = twinspan.rest if name == "rest" else None
        self._stub: Any = BatchesServiceStub(twinspan.inprocess if name == "inprocess" else twinspan.network)

    async def create(self, **order: Any) -> Any:
        order = {"endpoint": CHAT, "completion_window": "24h", **order}
        if self._rest:
            return await self._asked("POST", "/v1/batches", json=order)
        lifetime = order.pop("output_expires_after", None)
        if lifetime:
            order["output_expires_after_seconds"] = lifetime["seconds"]
        return await self._called("Create", batches_pb2.BatchesServiceCreateRequest(**order), "batch")

    async def get(self, id_: str) -> Any:
        if self._rest:
            return await self._asked("GET", f"/v1/batches/{id_}")
        return await self._called("Get", batches_pb2.BatchesServiceGetRequest(id=id_))

    async def list(self, **fields: Any) -> Any:
        if self._rest:
            return await self._asked("GET", "/v1/batches", params=fields)
        return await self._called("List", batches_pb2.BatchesServiceListRequest(**fields))

    async def cancel(self, id_: str) -> Any:
        if self._rest:
            return await self._asked("POST", f"/v1/batches/{id_}/cancel")
        return await self._called("Cancel", batches_pb2.BatchesServiceCancelRequest(id=id_), "batch")

    async def _asked(self, method: str, path: str, **options: Any) -> Any:
        assert self._rest is not None
        answer = await self._rest.request(method, path, **options)
        body = answer.json()
        return body if answer.status_code == 200 else (body["error_kind"], body["error"]["message"], body["error"]["param"])

    async def _called(self, method: str, request: Any, field: str = "") -> Any:
        try:
            answer = await getattr(self._stub, method)(request, metadata=(("authorization", f"Bearer {TOKEN}"),))
        except grpc.aio.AioRpcError as error:
            failure = errors.of_rpc(error)
            return failure.kind_name, failure.message, failure.param
        answer = getattr(answer, field) if field else answer
        render: Any = batches_dialect.batch_object if isinstance(answer, batches_pb2.Batch) else batches_dialect.batch_list
        return json.loads(render(answer))


def blank(value: Any) -> Any:
    """Takes out what differs from batch to batch."""
    if isinstance(value, dict):
        return {name: "*" if name.endswith("_at") and item else blank(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(blank(item) for item in value)
    return re.sub("(file-|batch_)[0-9a-f]{32}", "*", value) if isinstance(value, str) else value


POLLED = ["twinspan.v1.BatchesService/Get", "UNSET"]
"""The span of a look at a batch, of which there are as many as it takes."""


async def test_batches_are_the_same_on_every_surface(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(hangs())
    async with twinspan.openai() as sdk:
        right = (await sdk.files.create(file=("a", written(line(1))), purpose="batch")).id
        wrong = (await sdk.files.create(file=("a", b""), purpose="user_data")).id
        everywhere = []
        for name in ("rest", "inprocess", "network"):
            surface = Surface(twinspan, name)
            spans_of(twinspan)
            upstream.requests.clear()
            batch = await surface.create(input_file_id=right, metadata={"a": "b"})
            await upstream.arrived()
            found = [
                batch,
                await surface.create(input_file_id=wrong),
                await surface.create(input_file_id="nothing"),
                await surface.create(input_file_id=right, endpoint="/v1/files"),
                await surface.create(input_file_id=right, completion_window="soon"),
                await surface.create(input_file_id=right, completion_window="31d"),
                await surface.create(input_file_id=right, metadata={"a" * 65: ""}),
                await surface.create(input_file_id=right, metadata={str(number): "" for number in range(17)}),
                await surface.create(input_file_id=right, output_expires_after={"anchor": "created_at", "seconds": 1}),
                await surface.get("batch_" + "0" * 32),
                await surface.cancel("batch_" + "0" * 32),
                await surface.list(after="nonsense"),
                await surface.list(limit=0),
                await surface.list(limit=101),
            ]
            await surface.cancel(batch["id"])
            await ended(sdk, await sdk.batches.retrieve(batch["id"]))
            found += [await surface.get(batch["id"]), await surface.list(limit=1)]
            found[-1]["has_more"] = None
            found.append([span for span in spans_of(twinspan) if "BatchesService" in span[0] and span != POLLED])
            everywhere.append(blank(found))
    assert everywhere[0] == everywhere[1] == everywhere[2]
    kinds = [item[0] for item in everywhere[0] if isinstance(item, tuple)]
    assert kinds == ["invalid_request", "not_found", *["invalid_request"] * 6, *["not_found"] * 2, *["invalid_request"] * 3]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"{", None),
        (b'{"input_file_id": 5}', "input_file_id"),
        (b'{"metadata": {"a": 5}}', "metadata"),
        (b'{"output_expires_after": {"anchor": "now", "seconds": 3600}}', "output_expires_after.anchor"),
        (b'{"output_expires_after": {"anchor": "created_at"}}', "output_expires_after"),
        (b'{"output_expires_after": {"anchor": "created_at", "seconds": 99999999999999999999}}', "output_expires_after.seconds"),
        (b"{}", "completion_window"),
    ],
    ids=range(9),
)
async def test_a_body_that_is_no_order_is_refused(twinspan: Running, body: bytes, param: str | None) -> None:
    answer = await twinspan.rest.post("/v1/batches", content=body)
    assert (answer.status_code, answer.json()["error_kind"]) == (400, "invalid_request")
    assert (answer.json()["error"]["param"] or "").split("[")[0].startswith(param or "")
