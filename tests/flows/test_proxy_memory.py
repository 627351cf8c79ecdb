"""A gateway process that forwards bodies much larger than what it may hold of them."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.flows.commands import configure, started
from tests.flows.running import TOKEN
from tests.flows.test_files_on_disk import MEGABYTE, resident_bytes
from tests.flows.wire import Taken, Wire

SIZE = 100 * MEGABYTE
MOST_GROWTH = 32 * MEGABYTE
PIECE = bytes(range(256)) * 1024
HEADERS = f"Host: gateway\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


async def play(taken: Taken, writer: asyncio.StreamWriter) -> None:
    """Takes any body, and answers `GET /SIZE` with so many bytes, in pieces; of a form it tells how long it was."""
    if taken.target.startswith("/v1/audio/"):
        length, end = 0, b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            piece = await taken.reader.read(256 * 1024)
            length, end = length + len(piece), (end + piece)[-16:]
        said = b'{"text": "%d"}' % length
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
        return
    left = int(taken.field("Content-Length") or 0)
    received = 0
    while received < left:
        received += len(await taken.reader.read(256 * 1024))
    size = int(taken.target.removeprefix("/")) if taken.method == "GET" else 0
    if taken.method == "POST":
        said = str(received).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
        return
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(size // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[tuple[int, int]]:
    """Gives a gateway's process id and port."""
    async with Wire(play) as wire:
        configure(tmp_path, wire.base_url)
        async with started("serve", cwd=tmp_path, TWINSPAN_SECRETS_DIR=str(tmp_path / "secrets")) as process:
            url = (await process.until(r"^REST\s+(http\S+)/v1"))[1]
            yield process.process.pid, urlsplit(url).port or 0


@asynccontextmanager
async def downloading(port: int, size: int) -> AsyncIterator[asyncio.StreamReader]:
    """Begins to download so many bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /proxy/acme/%d HTTP/1.1\r\nConnection: close\r\n%s\r\n" % (size, HEADERS))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def download(port: int, size: int) -> int:
    """Downloads so many bytes and returns how many came."""
    async with downloading(port, size) as reader:
        came = 0
        while piece := await reader.read(MEGABYTE):
            came += len(piece)
        return came


async def upload(port: int, size: int) -> bytes:
    """Uploads so many bytes and returns what the provider says of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"POST /proxy/acme/up HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n" % (size, HEADERS))
        for _ in range(size // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
        return (await reader.read()).rpartition(b"\r\n\r\n")[2]
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.timeout(120)
async def test_a_hundred_megabytes_pass_each_way_at_flat_memory(gateway: tuple[int, int]) -> None:
    pid, port = gateway
    assert await download(port, 4 * MEGABYTE) == 4 * MEGABYTE  # what a first request allocates is no growth
    assert await upload(port, 4 * MEGABYTE) == str(4 * MEGABYTE).encode()
    resident_bytes(pid, peak=True)
    before = resident_bytes(pid)
    assert await download(port, SIZE) == SIZE
    down = resident_bytes(pid, peak=True) - before
    assert await upload(port, SIZE) == str(SIZE).encode()
    up = resident_bytes(pid, peak=True) - before
    assert down < MOST_GROWTH
    assert up < MOST_GROWTH


@pytest.mark.timeout(120)
async def test_clients_that_do_not_read_hold_the_provider_back(gateway: tuple[int, int]) -> None:
    pid, port = gateway
    await download(port, 4 * MEGABYTE)
    before = resident_bytes(pid)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(downloading(port, SIZE))
        assert await download(port, 4 * MEGABYTE) == 4 * MEGABYTE
        assert resident_bytes(pid, peak=True) - before < MOST_GROWTH


async def transcribe(port: int, size: int) -> int:
    """Uploads a recording of so many bytes and returns how long the provider says that its form was."""
    head = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nmodel-1\r\n'
    head += b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    end = b"\r\n--x--\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        kind = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n" % (len(head) + size + len(end))
        writer.write(b"POST /v1/audio/transcriptions HTTP/1.1\r\nConnection: close\r\n%s%s\r\n%s" % (kind, HEADERS, head))
        for _ in range(size // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
        writer.write(end)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        told = re.search(rb'{"text": "(\d+)"}', answer)
        assert told is not None
        return int(told[1])
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.timeout(120)
async def test_a_recording_of_a_hundred_megabytes_passes_at_flat_memory(gateway: tuple[int, int]) -> None:
    pid, port = gateway
    assert await transcribe(port, 4 * MEGABYTE) > 4 * MEGABYTE  # what a first request allocates is no growth
    before = resident_bytes(pid)
    resident_bytes(pid, peak=True)
    assert await transcribe(port, SIZE) > SIZE
    growth = resident_bytes(pid, peak=True) - before
    print(f"grew by {growth / MEGABYTE:.1f} MB for a form of {SIZE // MEGABYTE} MB")  # noqa: T201 (with -s, the figure)
    assert growth < MOST_GROWTH
