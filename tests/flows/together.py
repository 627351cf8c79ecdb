"""A gateway of several workers, as `twinspan serve --workers` runs it, and looks at its processes."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from openai import AsyncOpenAI

from tests.flows.commands import Process, configure, started
from tests.flows.running import TOKEN

METADATA = (("authorization", f"Bearer {TOKEN}"),)


@dataclass
class Together:
    """A gateway of several workers.

    Attributes:
        process: Its supervisor.
        url: Where REST is served.
        target: Where gRPC is served.
        scratch: Where it keeps what ends with it.
    """

    process: Process
    url: str
    target: str
    scratch: Path

    @property
    def pid(self) -> int:
        return self.process.process.pid

    def workers(self) -> set[int]:
        """Returns the process ids of its workers."""
        return {pid for pid in children(self.pid) if "bridge.cli.workers.worker" in command(pid)}

    @asynccontextmanager
    async def rest(self, token: str = TOKEN) -> AsyncIterator[httpx.AsyncClient]:
        """Gives a client that makes a new connection for each request, so that each may come to another worker."""
        limits = httpx.Limits(max_keepalive_connections=0)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, limits=limits, timeout=10) as client:
            yield client

    def sdk(self, token: str = TOKEN) -> AsyncOpenAI:
        """Returns the official SDK, with a new connection for each request."""
        headers = {"Connection": "close"}
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=token, default_headers=headers, max_retries=0, timeout=10)

    def channel(self) -> grpc.aio.Channel:
        """Returns a channel with a connection of its own."""
        return grpc.aio.insecure_channel(self.target, options=(("grpc.use_local_subchannel_pool", 1),))


@contextmanager
def scratch() -> Iterator[Path]:
    """Gives a directory with a path that is short enough for sockets, and makes sure that it is empty in the end."""
    with tempfile.TemporaryDirectory(prefix="tw-", dir="/tmp") as directory:
        yield Path(directory)
        assert list(Path(directory).iterdir()) == []


@asynccontextmanager
async def together(directory: Path, base_url: str, *, workers: int = 2, **sections: Any) -> AsyncIterator[Together]:
    """Runs a gateway of several workers for as long as the context lasts; it leaves no process and no file behind."""
    configure(directory, base_url, **sections)
    variables = {"TWINSPAN_SECRETS_DIR": str(directory / "secrets")}
    with scratch() as place:
        async with started("serve", "--workers", str(workers), cwd=directory, TMPDIR=str(place), **variables) as process:
            assert (await process.until(r"^workers\s+(\d+)"))[1] == str(workers)
            url = (await process.until(r"^REST\s+(http\S+)/v1"))[1]
            target = (await process.until(r"^gRPC\s+(\S+)"))[1]
            await process.until(r"^curl")
            running = Together(process, url, target, place)
            family = descendants(running.pid)
            yield running
            family |= descendants(running.pid)
        await gone(family)


def children(pid: int) -> set[int]:
    """Returns the process ids of a process's children."""
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:
        return set()


def descendants(pid: int) -> set[int]:
    """Returns the process ids of a process's children and of theirs."""
    found = children(pid)
    for child in list(found):
        found |= descendants(child)
    return found


def command(pid: int) -> str:
    """Returns what a process runs; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def sockets(pid: int) -> int:
    """Returns how many sockets a process has."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(link.readlink()).startswith("socket:")
    return count


async def gone(pids: set[int]) -> None:
    """Waits until processes have ended, be they reaped or not."""
    async with asyncio.timeout(10):
        while any(command(pid) for pid in pids):  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.01)
