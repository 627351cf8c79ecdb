"""Profiles of a running gateway, read by the real `go tool pprof`."""

import asyncio
import fcntl
import functools
import os
import re
import signal
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from twinspan.v1 import admin_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from bridge import errors
from gateway.profiling.pprof import encode
from gateway.profiling.profile import Profile, ValueType
from tests.flows.commands import run
from tests.flows.running import TOKEN, Running, running_over
from tests.flows.test_parity import HELLO
from tests.flows.upstream import Upstream, hangs
from tests.waiting import until

USER, READER = "ts-a-key-that-uses-models", "ts-a-key-that-only-reads"
KEYS = [{"name": "user", "token": USER}, {"name": "reader", "token": READER, "roles": ["read-only"]}]
GO = Path(sys.executable).with_name("go")

pytestmark = pytest.mark.timeout(180)  # Go builds its tool at first


@pytest.fixture
async def twinspan(upstream: Upstream) -> AsyncIterator[Running]:
    async with running_over(upstream, debug={"pprof_enabled": True}, api_keys=KEYS) as started:
        yield started


@dataclass(frozen=True)
class Go:
    """Go's own tool."""

    settings: Mapping[str, str]

    async def pprof(self, *arguments: str | Path) -> str:
        """Returns what `go tool pprof` prints."""
        process = await asyncio.create_subprocess_exec(
            *(GO, "tool", "pprof", *arguments),
            env={"PATH": os.environ["PATH"], **self.settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(120):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def top(self, path: Path, *options: str) -> dict[str, tuple[float, float]]:
        """Returns flat and cumulative values by function."""
        printed = await self.pprof("-top", "-nodecount=1000", *options, path)
        rows = re.findall(r"^ *([\d.]+)(?:ms|B)? +[\d.]+% +[\d.]+% +([\d.]+)(?:ms|B)? +[\d.]+% +(.+)$", printed, re.MULTILINE)
        return {name: (float(flat), float(cumulative)) for flat, cumulative, name in rows}


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Go:
    """Gives Go's tool, which is built once and found by later runs."""
    cache = Path(sys.prefix) / "go-build"
    cache.mkdir(exist_ok=True)
    settings = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "", "GOCACHE": str(cache)}
    settings["HOME"] = settings["PPROF_TMPDIR"] = str(tmp_path_factory.mktemp("go"))
    tool = Go(settings)
    path = tmp_path_factory.mktemp("empty") / "profile"
    path.write_bytes(encode(Profile((ValueType("a", "count"),), ValueType("a", "count"))))
    with (cache / "twinspan.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asyncio.run(tool.pprof("-raw", path))
    return tool


def hold_the_loop_up() -> None:
    time.sleep(0.2)


def work_a_little() -> None:
    until = time.perf_counter() + 0.0005
    while time.perf_counter() < until:
        pass


def burn() -> None:
    until = time.thread_time() + 0.6
    while time.thread_time() < until:
        sum(range(1000))


kept: list[Any] = []


def allocate() -> None:
    kept.extend(bytearray(1000) for _ in range(5000))


async def profile(twinspan: Running, path: Path, query: str) -> Path:
    """Makes a profile and writes it into a file."""
    answer = await twinspan.rest.get(f"/debug/pprof/{query}", timeout=30)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/octet-stream")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{query.partition("?")[0]}"'
    await asyncio.to_thread(path.write_bytes, answer.content)
    return path


async def test_processor_time_is_found_where_it_is_spent(twinspan: Running, go: Go, tmp_path: Path) -> None:
    making = asyncio.create_task(profile(twinspan, tmp_path / "cpu", "profile?seconds=2"))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(burn)
    found = await go.top(await making, "-unit=ms")
    name = f"{__name__}.burn"
    assert name in found, found
    assert found[name][0] == max(flat for flat, _ in found.values()), found
    assert found[name][1] >= 400
    raw = await go.pprof("-raw", tmp_path / "cpu")
    assert "samples/count cpu/nanoseconds" in raw
    sampled = sum(int(nanoseconds) for nanoseconds in re.findall(r"^ +\d+ +(\d+): ", raw, re.MULTILINE))
    assert sum(flat for flat, _ in found.values()) == pytest.approx(sampled / 1e6, rel=0.02)
    listed = await go.pprof("-list=burn", tmp_path / "cpu")
    assert "sum(range(1000))" in listed


async def test_a_busy_event_loop_does_not_starve_its_profile(twinspan: Running, go: Go, tmp_path: Path) -> None:
    """A loop that never waits gives the interpreter's lock up for microseconds alone."""
    making = asyncio.create_task(profile(twinspan, tmp_path / "cpu", "profile?seconds=1"))
    while not making.done():
        work_a_little()
        await asyncio.sleep(0)
    found = await go.top(await making, "-sample_index=samples")
    assert found[f"{__name__}.work_a_little"][0] >= 20


async def test_the_tool_fetches_a_profile_by_itself_with_the_token_in_the_address(twinspan: Running, go: Go) -> None:
    address = twinspan.url.replace("http://", f"http://:{TOKEN}@")
    printed = await go.pprof("-top", "-symbolize=none", f"{address}/debug/pprof/profile?seconds=1")
    assert "Type: cpu" in printed


async def test_the_tools_own_pages_show_a_profile(twinspan: Running, go: Go, tmp_path: Path) -> None:
    path = await profile(twinspan, tmp_path / "tasks", "goroutine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(GO, "tool", "pprof", f"-http=127.0.0.1:{port}", "-no_browser", path),
        env={"PATH": os.environ["PATH"], **go.settings},
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            url = ""
            while not url:
                line = (await process.stderr.readline()).decode()
                assert line
                url = "".join(re.findall(r"http://\S+", line))
        async with httpx.AsyncClient(timeout=30) as client:
            for page in ("top", "flamegraph", "source?f=goroutine"):
                answer = await client.get(f"{url}/ui/{page}")
                assert answer.status_code == 200
                assert "goroutine" in answer.text
    finally:
        os.killpg(process.pid, 15)
        await process.wait()


async def test_every_task_is_there_with_all_that_it_awaits(twinspan: Running, upstream: Upstream, go: Go, tmp_path: Path) -> None:
    upstream.plays(hangs())
    asking = asyncio.create_task(twinspan.chat(HELLO))
    async with asyncio.timeout(5):
        await upstream.arrived()
    path = await profile(twinspan, tmp_path / "tasks", "goroutine")
    asking.cancel()
    found = await go.top(path)
    for name in ("gateway.exchange.Exchange.open", "gateway.providers.sender.Sender.send", "bridge.server.BridgeServer._handle"):
        assert found[name][1] >= 1
    raw = await go.pprof("-raw", path)
    assert "task:[" in raw
    assert "thread:[MainThread]" in raw
    text = (await twinspan.rest.get("/debug/pprof/goroutine?debug=1")).text
    assert "gateway.profiling.tasks.goroutine" in text
    threads = (await twinspan.rest.get("/debug/pprof/threadcreate?debug=2")).text
    assert "[thread: MainThread]" in threads


async def test_what_holds_the_event_loop_up_is_named(twinspan: Running, go: Go, tmp_path: Path) -> None:
    making = asyncio.create_task(profile(twinspan, tmp_path / "block", "block?seconds=1"))
    await asyncio.sleep(0.3)
    asyncio.get_running_loop().call_soon(hold_the_loop_up)
    path = await making
    name = f"{__name__}.hold_the_loop_up"
    found = await go.top(path, "-sample_index=delay", "-unit=ms")
    assert found[name][0] >= 150
    assert (await go.top(path, "-sample_index=contentions"))[name][0] >= 1


async def test_who_waits_for_a_lock_is_named(twinspan: Running, go: Go, tmp_path: Path) -> None:
    lock = asyncio.Lock()

    async def wait_for_the_lock() -> None:
        async with lock:
            pass

    await lock.acquire()
    waiting = asyncio.create_task(wait_for_the_lock())
    path = await profile(twinspan, tmp_path / "mutex", "mutex?seconds=0.5")
    lock.release()
    await waiting
    found = await go.top(path, "-sample_index=delay", "-unit=ms")
    [name] = [name for name in found if name.endswith("wait_for_the_lock")]
    assert found[name][0] >= 300
    assert (await go.top(path, "-sample_index=contentions"))[name][0] == 1


@pytest.mark.parametrize(("kind", "index"), [("heap", "inuse_space"), ("allocs", "alloc_space")])
async def test_what_is_allocated_is_found_where_it_is_and_nothing_stays_on(
    twinspan: Running, go: Go, tmp_path: Path, kind: str, index: str
) -> None:
    making = asyncio.create_task(profile(twinspan, tmp_path / kind, f"{kind}?seconds=1"))
    await asyncio.sleep(0.3)
    allocate()
    path = await making
    kept.clear()
    found = await go.top(path, f"-sample_index={index}", "-unit=B")
    assert sum(flat for name, (flat, _) in found.items() if "allocate" in name) >= 5_000_000
    assert not tracemalloc.is_tracing()


async def test_one_profile_is_made_at_a_time_and_a_client_that_leaves_ends_it(twinspan: Running) -> None:
    first = asyncio.create_task(twinspan.rest.get("/debug/pprof/profile?seconds=60", timeout=90))
    await until(is_profiled)
    second = await twinspan.rest.get("/debug/pprof/profile?seconds=0.01")
    assert (second.status_code, second.json()["error_kind"]) == (409, "conflict")
    assert (await twinspan.rest.get("/debug/pprof/goroutine")).status_code == 200
    first.cancel()
    await until(lambda: not is_profiled())
    assert (await twinspan.rest.get("/debug/pprof/profile?seconds=0.01")).status_code == 200
    assert not is_profiled()
    assert twinspan.complaints() == []


def is_profiled() -> bool:
    return signal.getitimer(signal.ITIMER_PROF)[1] > 0 or any(thread.name == "profile cpu" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("query", "status", "kind"),
    [
        ("nothing", 404, "not_found"),
        ("profile?seconds=0", 400, "invalid_request"),
        ("profile?seconds=301", 400, "invalid_request"),
        ("profile?seconds=nan", 400, "invalid_request"),
        ("profile?seconds=soon", 400, "invalid_request"),
        ("goroutine?debug=3", 400, "invalid_request"),
        ("goroutine?debug=1.5", 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_made_is_refused(twinspan: Running, query: str, status: int, kind: str) -> None:
    answer = await twinspan.rest.get(f"/debug/pprof/{query}")
    assert (answer.status_code, answer.json()["error_kind"]) == (status, kind)


@pytest.mark.parametrize(("token", "status"), [(USER, 403), (READER, 403), ("ts-nobody-of-the-tests", 401), (None, 401)])
async def test_profiles_are_for_administrators(twinspan: Running, token: str | None, status: int) -> None:
    async with httpx.AsyncClient(base_url=twinspan.url) as client:
        for path in ("", "goroutine", "cmdline"):
            for scheme in ({"headers": {"Authorization": f"Bearer {token}"}}, {"auth": ("", token or "")}):
                given: Any = scheme if token else {}
                assert (await client.get(f"/debug/pprof/{path}", **given)).status_code == status
        assert (await client.get("/v1/models", auth=("", TOKEN))).status_code == 401  # where a password is no credential
        index = await client.get("/debug/pprof/", auth=("", TOKEN))
        assert 'href="profile"' in index.text


async def test_profiles_are_not_there_unless_they_are_switched_on(upstream: Upstream) -> None:
    async with running_over(upstream) as twinspan:
        for path in ("", "profile", "cmdline"):
            answer = await twinspan.rest.get(f"/debug/pprof/{path}")
            assert (answer.status_code, answer.json()["error_kind"]) == (404, "not_found")
            assert "debug.pprof_enabled" in answer.json()["error"]["message"]


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stub_makes_profiles_too(twinspan: Running, channel: str) -> None:
    stub: Any = AdminServiceStub(getattr(twinspan, channel))
    request = functools.partial(admin_pb2.ProfileRequest, kind="goroutine")
    messages = [message async for message in stub.Profile(request(debug=1), metadata=twinspan.metadata, timeout=5)]
    assert messages[0].content_type.startswith("text/plain")
    assert b"gateway.profiling.tasks.goroutine" in b"".join(message.content for message in messages)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Profile(request(), metadata=(("authorization", f"Bearer {USER}"),), timeout=5).read()
    assert errors.of_rpc(raised.value).kind_name == "permission_denied"


@pytest.mark.parametrize("surface", ["rest", "grpc"])
async def test_the_command_writes_a_profile(twinspan: Running, go: Go, tmp_path: Path, surface: str) -> None:
    where = ("--grpc", twinspan.target) if surface == "grpc" else ("--url", twinspan.url)
    finished = await run("profile", "goroutine", *where, "--token", TOKEN, cwd=tmp_path)
    assert (finished.code, finished.out) == (0, "")
    assert "go tool pprof" in finished.err
    assert "gateway.profiling.tasks.goroutine" in await go.top(tmp_path / "goroutine.pb.gz")
    finished = await run("profile", "goroutine", *where, "--token", TOKEN, "--text", cwd=tmp_path)
    assert "gateway.profiling.tasks.goroutine" in finished.out
    finished = await run("profile", "goroutine", *where, "--token", USER, "-o", "x", cwd=tmp_path)
    assert finished.code == 1
    assert list(tmp_path.glob("x*")) == []
