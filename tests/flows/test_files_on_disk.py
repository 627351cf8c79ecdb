"""Files and the machine: a process that is killed, a disk that is full, a directory that cannot be used, and memory."""

import asyncio
import hashlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.flows.commands import Process, configure, started
from tests.flows.running import TOKEN, configuration, running
from tests.waiting import until

NOWHERE = "http://127.0.0.1:9/v1"
MEGABYTE = 1024 * 1024
BIG_BYTES = int(os.environ.get("TWINSPAN_TEST_BIG_FILE_MB", "128")) * MEGABYTE
"""How large a large file is."""
FORM = {"Content-Type": "multipart/form-data; boundary=XX", "Authorization": f"Bearer {TOKEN}"}
HEAD = b'--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
HEAD += b'--XX\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'


@asynccontextmanager
async def gateway(directory: Path) -> AsyncIterator[tuple[Process, str]]:
    async with started("serve", cwd=directory, TWINSPAN_SECRETS_DIR=str(directory / "secrets")) as process:
        yield process, (await process.until(r"^REST\s+(http\S+)/v1"))[1]


def sdk(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0, timeout=30)


async def kill(process: Process) -> None:
    process.process.send_signal(signal.SIGKILL)
    assert await process.ended() == -signal.SIGKILL


async def test_a_killed_gateway_has_each_file_whole_or_not_at_all(tmp_path: Path) -> None:
    configure(tmp_path, NOWHERE, files={"dir": "files"})
    answered: dict[str, str] = {}
    for _ in range(3):
        async with gateway(tmp_path) as (process, url), sdk(url) as client:
            enough = asyncio.Event()

            async def upload_on_and_on(client: AsyncOpenAI = client, enough: asyncio.Event = enough) -> None:
                while True:
                    content = os.urandom(300_000)
                    name = hashlib.sha256(content).hexdigest()
                    try:
                        file = await client.files.create(file=(name, content), purpose="user_data")
                    except openai.APIConnectionError:
                        return
                    answered[file.id] = name
                    if len(answered) % 10 == 0:
                        enough.set()

            uploads = [asyncio.create_task(upload_on_and_on()) for _ in range(4)]
            async with asyncio.timeout(20):
                await enough.wait()
            await kill(process)
            await asyncio.gather(*uploads)
    (tmp_path / "files/incoming/half").write_bytes(b"what the last crash left")
    async with gateway(tmp_path) as (_, url), sdk(url) as client:
        found = {file.id: file.filename async for file in client.files.list()}
        assert answered.items() <= found.items()
        for id_, name in found.items():
            assert hashlib.sha256((await client.files.content(id_)).content).hexdigest() == name
        assert {path.name for path in (tmp_path / "files/blobs").iterdir()} == set(found)
        assert list((tmp_path / "files/incoming").iterdir()) == []


async def test_an_upload_that_is_cut_off_by_a_kill_is_not_there(tmp_path: Path) -> None:
    configure(tmp_path, NOWHERE, files={"dir": "files"})
    incoming = tmp_path / "files/incoming"
    async with gateway(tmp_path) as (process, url), httpx.AsyncClient(timeout=10) as client:

        async def body() -> AsyncIterator[bytes]:
            yield HEAD + bytes(2 * MEGABYTE)
            await until(lambda: incoming.exists() and any(path.stat().st_size for path in incoming.iterdir()))
            await kill(process)

        with pytest.raises(httpx.TransportError):
            await client.post(f"{url}/v1/files", content=body(), headers=FORM)
    async with gateway(tmp_path) as (_, url), sdk(url) as client_again:
        assert (await client_again.files.list()).data == []
    assert list(incoming.iterdir()) == []


async def test_no_room_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    configure(tmp_path, NOWHERE, files={"dir": "files"})
    async with gateway(tmp_path) as (process, url), sdk(url) as client:
        small = await client.files.create(file=("a", b"content"), purpose="user_data")
        # Linux answers a file that outgrows this limit as it answers one for which there is no room.
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (MEGABYTE, MEGABYTE))
        with pytest.raises(openai.InternalServerError) as raised:
            await client.files.create(file=("b", bytes(4 * MEGABYTE)), purpose="user_data")
        assert raised.value.response.status_code == 503
        assert raised.value.response.headers["Retry-After"] == "60"
        assert "no room left" in str(raised.value)
        assert str(tmp_path) not in raised.value.response.text
        assert [path.name for path in (tmp_path / "files/blobs").iterdir()] == [small.id]
        assert list((tmp_path / "files/incoming").iterdir()) == []
        assert (await client.files.content(small.id)).content == b"content"


async def test_a_directory_that_cannot_be_used_is_said_and_nothing_else_suffers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    async with running(configuration(NOWHERE, files={"dir": str(tmp_path / "file/below")})) as twinspan:
        answer = await twinspan.rest.get("/v1/files")
        assert (answer.status_code, answer.json()["error_kind"]) == (503, "not_configured")
        assert "files.dir" in answer.json()["error"]["message"]
        assert str(tmp_path) not in answer.text
        assert str(tmp_path) in twinspan.complaints()[0]
        assert (await twinspan.rest.get("/v1/models")).status_code == 200


async def test_two_gateways_cannot_share_a_directory(tmp_path: Path) -> None:
    tree = configuration(NOWHERE, files={"dir": str(tmp_path / "files")})
    async with running(tree) as first:
        assert (await first.rest.get("/v1/files")).status_code == 200
        async with running(tree) as second:
            answer = await second.rest.get("/v1/files")
            assert (answer.status_code, answer.json()["error_kind"]) == (503, "not_configured")
            assert (await second.rest.get("/v1/models")).status_code == 200
        assert (await first.rest.get("/v1/files")).status_code == 200


async def test_files_pass_a_bridge_whose_core_is_elsewhere(tmp_path: Path) -> None:
    anywhere = {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0"}
    configure(tmp_path, NOWHERE, files={"dir": "files"}, server={**anywhere, "max_upload_bytes": 5 * MEGABYTE})
    secrets = {"TWINSPAN_SECRETS_DIR": str(tmp_path / "secrets")}
    async with started("core", cwd=tmp_path, **secrets) as core:
        target = (await core.until(r"^gRPC\s+(\S+)"))[1]
        async with started("bridge", "--core", target, cwd=tmp_path, **secrets) as bridge:
            url = (await bridge.until(r"^REST\s+(http\S+)/v1"))[1]
            async with sdk(url) as client:
                content = os.urandom(5 * MEGABYTE)
                file = await client.files.create(file=("a", content), purpose="user_data")
                assert (await client.files.content(file.id)).content == content
                with pytest.raises(openai.APIStatusError) as raised:
                    await client.files.create(file=("a", content + b"x"), purpose="user_data")
                assert raised.value.status_code == 413
                with pytest.raises(openai.AuthenticationError):
                    await client.with_options(api_key="none").files.create(file=("a", content), purpose="user_data")
                with pytest.raises(openai.BadRequestError):
                    await client.files.create(file=("a", content), purpose="nothing")  # type: ignore[arg-type]  # that is the point
                assert [item.id async for item in client.files.list()] == [file.id]
    assert list((tmp_path / "files/incoming").iterdir()) == []


def resident_bytes(pid: int, *, peak: bool = False) -> int:
    """Returns how much memory a process has resident; with `peak`, the most since this was last asked for. Asking begins anew."""
    status = Path(f"/proc/{pid}/status").read_text()
    name = "VmHWM" if peak else "VmRSS"
    found = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return found


def pieces(size: int) -> Iterator[bytes]:
    piece = os.urandom(MEGABYTE)
    return (piece for _ in range(size // MEGABYTE))


@asynccontextmanager
async def gateway_over_another(directory: Path) -> AsyncIterator[tuple[Process, str]]:
    """Runs a gateway whose files are kept by another one."""
    far, near = directory / "far", directory / "near"
    far.mkdir()
    near.mkdir()
    configure(far, NOWHERE, files={"dir": "files"})
    async with gateway(far) as (_, url):
        remote = {"base_url": f"{url}/v1", "api_key": TOKEN}
        backend = {"backend": "remote"}
        configure(near, NOWHERE, providers={"remote": remote}, files={"dir": "files", **backend}, batches=backend)
        async with gateway(near) as started_over:
            yield started_over


@asynccontextmanager
async def gateway_of_its_own(directory: Path) -> AsyncIterator[tuple[Process, str]]:
    """Runs a gateway that keeps its files itself."""
    configure(directory, NOWHERE, files={"dir": "files"})
    async with gateway(directory) as started_alone:
        yield started_alone


@pytest.mark.timeout(300)
@pytest.mark.parametrize("runs", [gateway_of_its_own, gateway_over_another])
async def test_a_large_file_passes_at_flat_memory(
    tmp_path: Path, runs: Callable[[Path], AbstractAsyncContextManager[tuple[Process, str]]]
) -> None:
    async with runs(tmp_path) as (process, url), httpx.AsyncClient(base_url=url, timeout=120) as client:
        pid = process.process.pid
        given, got = hashlib.sha256(), hashlib.sha256()

        async def body(size: int) -> AsyncIterator[bytes]:
            yield HEAD
            for piece in pieces(size):
                given.update(piece)
                yield piece
            yield b"\r\n--XX--\r\n"

        for size in (4 * MEGABYTE, BIG_BYTES):  # the first to warm up, since what a first request allocates is no growth
            given, got = hashlib.sha256(), hashlib.sha256()
            before = resident_bytes(pid)
            file = (await client.post("/v1/files", content=body(size), headers=FORM)).json()
            up = resident_bytes(pid, peak=True) - before
            async with client.stream("GET", f"/v1/files/{file['id']}/content", headers=FORM) as answer:
                async for piece in answer.aiter_bytes():
                    got.update(piece)
            down = resident_bytes(pid, peak=True) - before
        assert file["bytes"] == BIG_BYTES
        assert got.digest() == given.digest()
        print(f"grew by {up / MEGABYTE:.1f} MB up and {down / MEGABYTE:.1f} MB down, for {BIG_BYTES // MEGABYTE} MB")  # noqa: T201 (with -s, the figure)
        assert max(up, down) < 32 * MEGABYTE
