"""Files over both surfaces: what the official SDK does, what every surface answers alike, and what hostile clients get."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from twinspan.v1 import files_pb2
from twinspan.v1.files_pb2_grpc import FilesServiceStub

from bridge import errors
from bridge.dialects import files as files_dialect
from tests.flows.running import Running, configuration, running, spans_of
from tests.waiting import until

ANN, BEN = "ts-the-key-of-ann-0001", "ts-the-key-of-ben-0001"
KEYS = [
    {"name": "ann", "token": ANN},
    {"name": "ben", "token": BEN},
    {"name": "eve", "token": "ts-eve-reads-only", "roles": ["read-only"]},
]
NOWHERE = "http://127.0.0.1:9/v1"
LIMIT = 4 * 1024 * 1024


def sections(directory: Path, **more: Any) -> dict[str, Any]:
    tree = configuration(NOWHERE, files={"dir": str(directory)}, api_keys=KEYS, **more)
    tree["server"] = {**tree["server"], "max_upload_bytes": LIMIT}
    return tree


@pytest.fixture
async def twinspan(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(sections(tmp_path / "files")) as started:
        yield started
        assert started.complaints() == []


def kept(directory: Path) -> list[str]:
    return sorted(path.name for part in ("blobs", "incoming") for path in (directory / "files" / part).iterdir())


async def test_the_sdk_uploads_reads_lists_and_deletes(twinspan: Running) -> None:
    content = os.urandom(3_000_000)
    async with twinspan.openai(ANN) as sdk:
        file = await sdk.files.create(file=("grüezi 1.bin", content), purpose="user_data")
        assert (file.object, file.bytes, file.filename, file.purpose, file.status) == (
            "file",
            len(content),
            "grüezi 1.bin",
            "user_data",
            "processed",
        )
        assert file.expires_at is None
        assert await sdk.files.retrieve(file.id) == file
        answer = await sdk.files.content(file.id)
        assert answer.content == content
        expiring = await sdk.files.create(
            file=("b.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200}
        )
        assert expiring.expires_at == expiring.created_at + 7200
        assert [item.id async for item in sdk.files.list()] == [expiring.id, file.id]
        assert [item.id async for item in sdk.files.list(order="asc")] == [file.id, expiring.id]
        assert [item.id async for item in sdk.files.list(purpose="batch")] == [expiring.id]
        deleted = await sdk.files.delete(file.id)
        assert (deleted.id, deleted.deleted) == (file.id, True)
        with pytest.raises(openai.NotFoundError):
            await sdk.files.content(file.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.files.delete(file.id)


async def test_the_sdk_pages_through_files_while_it_deletes_them(twinspan: Running) -> None:
    async with twinspan.openai(ANN) as sdk:
        made = [(await sdk.files.create(file=(f"{number}", b""), purpose="evals")).id for number in range(7)]
        seen = []
        async for file in sdk.files.list(limit=2, order="asc"):
            seen.append(file.id)
            await sdk.files.delete(file.id)
        assert seen == made
        assert (await sdk.files.list()).data == []


async def test_a_key_sees_its_own_files_and_an_administrator_all(twinspan: Running) -> None:
    async with twinspan.openai(ANN) as ann, twinspan.openai(BEN) as ben, twinspan.openai() as admin:
        file = await ann.files.create(file=("a", b"secret"), purpose="user_data")
        own = await ben.files.create(file=("b", b""), purpose="user_data")
        for steal in (ben.files.retrieve, ben.files.content, ben.files.delete):
            with pytest.raises(openai.NotFoundError, match=file.id):
                await steal(file.id)
        assert [item.id async for item in ben.files.list()] == [own.id]
        assert {item.id async for item in admin.files.list()} == {file.id, own.id}
        assert (await admin.files.content(file.id)).content == b"secret"
        assert (await ann.files.retrieve(file.id)).id == file.id
    async with twinspan.openai("ts-eve-reads-only") as eve:
        with pytest.raises(openai.PermissionDeniedError):
            await eve.files.create(file=("a", b""), purpose="user_data")
        assert [item.id async for item in eve.files.list()] == []


async def test_ranges_and_head(twinspan: Running) -> None:
    async with twinspan.openai() as sdk:
        file = await sdk.files.create(file=("a", b"0123456789"), purpose="user_data")
    path = f"/v1/files/{file.id}/content"
    for asked, status, body, described in (
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ):
        answer = await twinspan.rest.get(path, headers={"Range": asked})
        assert (answer.status_code, answer.content, answer.headers.get("content-range")) == (status, body, described)
    beyond = await twinspan.rest.get(path, headers={"Range": "bytes=10-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")
    assert beyond.json()["error_kind"] == "invalid_request"
    whole = await twinspan.rest.get(path, headers={"Range": "bytes=1-2", "If-Range": '"another"'})
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    part = await twinspan.rest.get(path, headers={"Range": "bytes=1-2", "If-Range": whole.headers["etag"]})
    assert part.content == b"12"
    head = await twinspan.rest.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    written = b""
    for name, filename, value in parts:
        named = f'; filename="{filename}"' if filename is not None else ""
        written += f'--XX\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value + b"\r\n"
    return written + b"--XX--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=XX"}


async def test_the_fields_of_a_form_may_come_in_any_order(twinspan: Running) -> None:
    purpose, seconds, file = ("purpose", None, b"batch"), ("expires_after[seconds]", None, b"3600"), ("file", "a", b"content")
    anchor, unknown = ("expires_after[anchor]", None, b"created_at"), ("something", None, b"else")
    for fields in ((purpose, anchor, seconds, file), (file, unknown, seconds, purpose)):
        answer = await twinspan.rest.post("/v1/files", content=form(*fields), headers=FORM)
        assert answer.status_code == 200, answer.text
        file_object = answer.json()
        assert (file_object["purpose"], file_object["expires_at"] - file_object["created_at"]) == ("batch", 3600)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (form(("purpose", None, b"batch")), "file"),
        (form(("file", "a", b"content")), "purpose"),
        (form(("file", "a", b"content"), ("purpose", None, b"world-domination")), "purpose"),
        (form(("file", "a", b"1"), ("file", "b", b"2"), ("purpose", None, b"batch")), "file"),
        (form(("file", None, b"1"), ("purpose", None, b"batch")), "file"),
        (form(("file", "", b"1"), ("purpose", None, b"batch")), "file"),
        (form(("file", "a" * 300, b"1"), ("purpose", None, b"batch")), "file"),
        (form(("file", "a\tb", b"1"), ("purpose", None, b"batch")), "file"),
        (form(("purpose", None, b"batch"), ("file", "a", b"1"), ("expires_after[seconds]", None, b"1")), "expires_after[seconds]"),
        (form(("purpose", None, b"batch"), ("file", "a", b"1"), ("expires_after[seconds]", None, b"-1")), "expires_after[seconds]"),
        (form(("purpose", None, b"batch"), ("file", "a", b"1"), ("expires_after[anchor]", None, b"x")), "expires_after[anchor]"),
        (form(("file", "a", b"content"))[:-8], None),
        (b"no form at all", None),
    ],
    ids=range(13),
)
async def test_a_form_that_is_wrong_is_refused_and_leaves_nothing(
    twinspan: Running, tmp_path: Path, body: bytes, param: str | None
) -> None:
    answer = await twinspan.rest.post("/v1/files", content=body, headers=FORM)
    assert (answer.status_code, answer.json()["error_kind"], answer.json()["error"]["param"]) == (400, "invalid_request", param)
    if (tmp_path / "files").exists():
        await until(lambda: not kept(tmp_path))


async def test_a_file_above_the_limit_is_refused_and_leaves_nothing(twinspan: Running, tmp_path: Path) -> None:
    async with twinspan.openai() as sdk:
        with pytest.raises(openai.APIStatusError) as raised:
            await sdk.files.create(file=("a", bytes(LIMIT + 1)), purpose="user_data")
        assert (raised.value.status_code, raised.value.body["code"]) == (413, "payload_too_large")  # type: ignore[index]  # a mapping
        assert kept(tmp_path) == []
        await sdk.files.create(file=("a", bytes(LIMIT)), purpose="user_data")


async def test_a_client_that_hangs_up_leaves_nothing(twinspan: Running, tmp_path: Path) -> None:
    host, port = twinspan.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\nContent-Type: {FORM['Content-Type']}\r\n"
    head += f"Authorization: {dict(twinspan.metadata)['authorization']}\r\n\r\n"
    writer.write(head.encode() + form(("purpose", None, b"batch"), ("file", "a", bytes(2_000_000)))[:-8])
    await writer.drain()
    await until(lambda: (tmp_path / "files/incoming").exists() and any((tmp_path / "files/incoming").iterdir()))
    writer.close()
    await until(lambda: not kept(tmp_path))


async def test_a_client_that_waits_for_leave_to_send_gets_it(twinspan: Running) -> None:
    host, port = twinspan.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = form(("purpose", None, b"batch"), ("file", "a", b"content"))
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nContent-Type: {FORM['Content-Type']}\r\n"
    head += f"Expect: 100-continue\r\nAuthorization: {dict(twinspan.metadata)['authorization']}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.close()


# Parity: the same calls over REST, the in-process channel and the network.


class Surface:
    """Files over one surface, with answers in one form."""

    def __init__(self, twinspan: Running, name: str) -> None:
        self._twinspan = twinspan
        self._rest = twinspan.rest if name == "rest" else None
        channel = twinspan.inprocess if name == "inprocess" else twinspan.network
        self._stub: Any = FilesServiceStub(channel)

    async def upload(self, content: bytes, **description: Any) -> Any:
        if self._rest:
            fields = [("purpose", None, description["purpose"].encode())]
            if "expires_after_seconds" in description:
                fields.append(("expires_after[seconds]", None, str(description["expires_after_seconds"]).encode()))
            return await self._asked(
                "POST", "/v1/files", content=form(*fields, ("file", description["filename"], content)), headers=FORM
            )
        requests = [
            files_pb2.FilesServiceUploadRequest(content=content),
            files_pb2.FilesServiceUploadRequest(description=files_pb2.FileDescription(**description)),
        ]
        return await self._called(
            self._stub.Upload(iter(requests), metadata=self._twinspan.metadata), files_dialect.file_object, "file"
        )

    async def get(self, id_: str) -> Any:
        if self._rest:
            return await self._asked("GET", f"/v1/files/{id_}")
        request = files_pb2.FilesServiceGetRequest(id=id_)
        return await self._called(self._stub.Get(request, metadata=self._twinspan.metadata), files_dialect.file_object)

    async def list(self, **fields: Any) -> Any:
        if self._rest:
            return await self._asked("GET", "/v1/files", params=fields)
        request = files_pb2.FilesServiceListRequest(**fields)
        return await self._called(self._stub.List(request, metadata=self._twinspan.metadata), files_dialect.file_list)

    async def delete(self, id_: str) -> Any:
        if self._rest:
            return await self._asked("DELETE", f"/v1/files/{id_}")
        request = files_pb2.FilesServiceDeleteRequest(id=id_)
        return await self._called(self._stub.Delete(request, metadata=self._twinspan.metadata), files_dialect.deletion)

    async def download(self, id_: str) -> Any:
        if self._rest:
            answer = await self._rest.get(f"/v1/files/{id_}/content")
            return answer.content if answer.status_code == 200 else _error(answer.json())
        request = files_pb2.FilesServiceDownloadRequest(id=id_)
        try:
            return b"".join([message.content async for message in self._stub.Download(request, metadata=self._twinspan.metadata)])
        except grpc.aio.AioRpcError as error:
            return _error_of(error)

    async def _asked(self, method: str, path: str, **options: Any) -> Any:
        assert self._rest is not None
        answer = await self._rest.request(method, path, **options)
        return answer.json() if answer.status_code == 200 else _error(answer.json())

    async def _called(self, call: Any, render: Any, field: str = "") -> Any:
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            return _error_of(error)
        return json.loads(render(getattr(answer, field) if field else answer))


def _error(body: Any) -> tuple[str, str, str | None]:
    return body["error_kind"], body["error"]["message"], body["error"]["param"]


def _error_of(error: grpc.aio.AioRpcError) -> tuple[str, str, str | None]:
    failure = errors.of_rpc(error)
    return failure.kind_name, failure.message, failure.param


def blank(value: Any) -> Any:
    """Takes out what differs from file to file."""
    if isinstance(value, dict):
        return {
            name: "*" if name in {"id", "created_at", "first_id", "last_id"} and item else blank(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(blank(item) for item in value)
    return re.sub("file-[0-9a-f]{32}", "*", value) if isinstance(value, str) else value


async def test_files_are_the_same_on_every_surface(twinspan: Running) -> None:
    everywhere = []
    for name in ("rest", "inprocess", "network"):
        surface = Surface(twinspan, name)
        spans_of(twinspan)
        file = await surface.upload(b"content", filename="a b", purpose="user_data")
        missing = "file-" + "0" * 32
        everywhere.append(
            blank(
                [
                    file,
                    await surface.upload(b"", filename="", purpose="user_data"),
                    await surface.upload(b"", filename="a", purpose="nothing"),
                    await surface.upload(b"", filename="a", purpose="batch", expires_after_seconds=1),
                    await surface.upload(bytes(LIMIT + 1), filename="a", purpose="batch"),
                    await surface.get(file["id"]),
                    await surface.get(missing),
                    await surface.get("x" * 300),
                    await surface.download(file["id"]),
                    await surface.download(missing),
                    await surface.list(),
                    await surface.list(limit=1, order="asc", purpose="user_data"),
                    await surface.list(after=file["id"]),
                    await surface.list(after="nonsense"),
                    await surface.list(order="sideways"),
                    await surface.list(limit=0),
                    await surface.list(limit=10_001),
                    await surface.delete(file["id"]),
                    await surface.delete(file["id"]),
                    spans_of(twinspan),
                ]
            )
        )
    assert everywhere[0] == everywhere[1] == everywhere[2]
    assert len(everywhere[0][-1]) == 19
    kinds = [item[0] for item in everywhere[0] if isinstance(item, tuple)]
    assert kinds == [*["invalid_request"] * 3, "payload_too_large", *["not_found"] * 3, *["invalid_request"] * 4, "not_found"]


async def test_only_grpc_can_say_it_wrongly_like_this(twinspan: Running) -> None:
    stub: Any = FilesServiceStub(twinspan.network)
    upload, description = files_pb2.FilesServiceUploadRequest, files_pb2.FileDescription(filename="a", purpose="batch")
    for requests in ([], [upload()], [upload(content=b"1")], [upload(description=description)] * 2):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Upload(iter(requests), metadata=twinspan.metadata)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    file = (await stub.Upload(iter([upload(description=description), upload(content=b"0123")]), metadata=twinspan.metadata)).file
    for offset, length in ((-1, None), (5, None), (0, -1)):
        request = files_pb2.FilesServiceDownloadRequest(id=file.id, offset=offset, length=length)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            [_ async for _ in stub.Download(request, metadata=twinspan.metadata)]
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    request = files_pb2.FilesServiceDownloadRequest(id=file.id, offset=4)
    messages = [message async for message in stub.Download(request, metadata=twinspan.metadata)]
    assert [(message.file.id, message.content) for message in messages] == [(file.id, b"")]
