"""What a request costs this process over each HTTP client that the sender could stand on.

Not a test: `python -m tests.gateway.providers.measure` prints a table. A provider of fixed answers runs in a process of its own.
The clients take turns, round after round, so that a machine whose speed drifts is the same one for all of them; told are medians
of this process's CPU time, user and system. The figures of docs/adr/0002-outbound-sender.md come from here. A client whose package
is not installed is left out.
"""

import argparse
import asyncio
import gc
import importlib
import importlib.util
import multiprocessing
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.connection import Connection
from typing import cast

import aiohttp
import httpx
import uvloop
from yarl import URL

from gateway.providers.sender import OutboundRequest, Sender, Timeouts

BODY = b'{"model": "m-1", "messages": [{"role": "user", "content": "%b"}]}' % (b"x" * 140)
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer secret", "User-Agent": "twinspan/1"}
TIMEOUTS = Timeouts(60, 60, 60, 60)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024
EVENT = b"data: %b\n\n" % (b"x" * 242)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
CHUNKS = 100

Ask = Callable[[str], Awaitable[int]]
"""Sends one request to a URL, reads the answer piece by piece, and returns its length."""


class Provider(asyncio.Protocol):
    """Answers whatever ends in the known body: /stream with chunks, one write each, anything else with a kilobyte."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(BODY):
            return
        if b" /stream " in self._received:
            self._stream(0)
        else:
            self._transport.write(WHOLE)
        self._received = b""

    def _stream(self, number: int) -> None:
        if number == CHUNKS:
            self._transport.write(b"0\r\n\r\n")
            return
        self._transport.write(STREAM_HEAD + CHUNK if number == 0 else CHUNK)
        asyncio.get_running_loop().call_soon(self._stream, number + 1)


async def provide(parent: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0)
    parent.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def run_provider(parent: Connection) -> None:
    uvloop.run(provide(parent))


@asynccontextmanager
async def the_sender() -> AsyncIterator[Ask]:
    async with Sender() as sender:
        urls: dict[str, URL] = {}

        async def ask(url: str) -> int:
            target = urls.setdefault(url, URL(url))
            response = await sender.send(OutboundRequest(target, HEADERS, BODY, TIMEOUTS, "acme", "m-1"))
            length = 0
            while piece := await response.next_piece():
                length += len(piece)
            return length

        yield ask


@asynccontextmanager
async def aiohttp_session() -> AsyncIterator[Ask]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def ask(url: str) -> int:
            async with session.post(url, data=BODY, headers=HEADERS, allow_redirects=False) as response:
                return sum([len(piece) async for piece in response.content.iter_any()])

        yield ask


@asynccontextmanager
async def httpx_client(transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Ask]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(transport=transport, limits=limits, trust_env=False, timeout=60) as client:

        async def ask(url: str) -> int:
            async with client.stream("POST", url, content=BODY, headers=HEADERS) as response:
                return sum([len(piece) async for piece in response.aiter_raw()])

        yield ask


@asynccontextmanager
async def bare_transport(transport: httpx.AsyncBaseTransport) -> AsyncIterator[Ask]:
    """The least that httpx can cost: its requests, given to the transport without its client."""
    async with transport:

        async def ask(url: str) -> int:
            request = httpx.Request("POST", url, content=BODY, headers=HEADERS)
            response = await transport.handle_async_request(request)
            try:
                return sum([len(piece) async for piece in cast("httpx.AsyncByteStream", response.stream)])
            finally:
                await response.aclose()

        yield ask


async def spent_by(ask: Ask, url: str, length: int, connections: int, requests: int) -> float:
    """Returns the CPU seconds of one request, over `connections` tasks that share `requests`."""

    async def work() -> None:
        for _ in range(requests // connections):
            if await ask(url) != length:
                raise RuntimeError("an answer of another length")

    gc.collect()
    before = time.process_time()
    await asyncio.gather(*(work() for _ in range(connections)))
    return (time.process_time() - before) / (requests // connections * connections)


async def measure(port: int, rounds: int, requests: int) -> None:
    async with AsyncExitStack() as stack:
        clients = {
            "sender": await stack.enter_async_context(the_sender()),
            "aiohttp.ClientSession": await stack.enter_async_context(aiohttp_session()),
            "httpx, default transport": await stack.enter_async_context(httpx_client()),
        }
        if importlib.util.find_spec("httpx_aiohttp") is not None:
            make = importlib.import_module("httpx_aiohttp").AiohttpTransport
            clients["httpx over httpx-aiohttp"] = await stack.enter_async_context(httpx_client(make()))
            clients["httpx-aiohttp, transport alone"] = await stack.enter_async_context(bare_transport(make()))
        sys.stdout.write(f"{'':36}{'connections':>12}{'CPU us':>10}{'ratio':>8}\n")
        for path, length, share in (("whole", 1024, 1), ("stream", CHUNKS * len(EVENT), 20)):
            for connections in (1, 32):
                spent: dict[str, list[float]] = {name: [] for name in clients}
                for number in range(rounds + 1):
                    for name, ask in clients.items():
                        seconds = await spent_by(ask, f"http://127.0.0.1:{port}/{path}", length, connections, requests // share)
                        if number:  # the first round connects and warms up
                            spent[name].append(seconds)
                base = statistics.median(spent["sender"])
                for name, seconds_each in spent.items():
                    median = statistics.median(seconds_each)
                    sys.stdout.write(f"{path + ', ' + name:42}{connections:>6}{median * 1e6:>10.0f}{median / base:>8.2f}\n")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--requests", type=int, default=2000, help="requests of a client in a round; a 20th of that are streams")
    given = arguments.parse_args()
    ours, theirs = multiprocessing.Pipe()
    provider = multiprocessing.get_context("spawn").Process(target=run_provider, args=(theirs,), daemon=True)
    provider.start()
    try:
        uvloop.run(measure(ours.recv(), given.rounds, given.requests))
    finally:
        provider.terminate()
        provider.join()


if __name__ == "__main__":
    main()
