"""A proxy that stands between the gateway and a provider, and does to each answer what a test has chosen.

Below is `tests.flows.upstream`, whose true answer is fetched whole before any of it is passed on, so that a fault can be put at
an exact place in it. What is done is a play of `tests.faults.plays`. Nothing here is random, and nothing waits for time to pass: a
play that must come after something waits until the test says that the client has seen it.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self, TypeAlias

import httpx


@dataclass(frozen=True, slots=True)
class Answer:
    """The provider's true answer."""

    content_type: str
    body: bytes

    @property
    def streamed(self) -> bool:
        return self.content_type.startswith("text/event-stream")

    @property
    def pieces(self) -> list[bytes]:
        """The events of a stream; the two halves of a whole answer."""
        if self.streamed:
            return [event + b"\n\n" for event in self.body.split(b"\n\n") if event]
        middle = len(self.body) // 2
        return [self.body[:middle], self.body[middle:]]

    @property
    def begun(self) -> bytes:
        """What the client must see before the rest: the role and the first words."""
        return b"".join(self.pieces[:2]) if self.streamed else self.pieces[0]

    @property
    def rest(self) -> bytes:
        return self.body[len(self.begun) :]


class Passage:
    """One request on its way to the provider, and the answer on its way back.

    Attributes:
        number: Which of the proxy's requests it is, from 1; 0 before there is one.
        idle: Whether the connection waits for a request.
        asker: Who asks, as the request says it by its `user`.
        seen: Set once the client has seen the beginning of the answer.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: httpx.AsyncClient, count: Callable[[], int]
    ) -> None:
        self.number = 0
        self.idle = False
        self.asker = ""
        self.seen = asyncio.Event()
        self._came = False
        self._count = count
        self._reader = reader
        self._writer = writer
        self._upstream = upstream

    async def arrive(self) -> None:
        """Waits for a request, of which its head is read and its body is not."""
        if self._came:
            return
        self.idle = True
        self._head = await self._reader.readuntil(b"\r\n\r\n")
        self.idle = False
        self._came = True
        self.number = self._count()

    async def arrive_again(self) -> None:
        """Waits for the next request over the same connection."""
        self._came = False
        await self.arrive()

    async def request(self) -> bytes:
        """Waits for a request, and returns its body."""
        await self.arrive()
        length = int(self._head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        self.asker = json.loads(body).get("user", "")
        return body

    async def answer(self) -> Answer:
        """Waits for a request, and returns the provider's answer to it."""
        body = await self.request()
        response = await self._upstream.post("/chat/completions", content=body, headers={"Content-Type": "application/json"})
        return Answer(response.headers["Content-Type"], response.content)

    async def send(self, data: bytes) -> None:
        """Sends bytes to the gateway, as they are."""
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        """Ends the connection with RST."""
        made = self._writer.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def finish(self) -> None:
        """Says with FIN that nothing more comes, and waits for the gateway's own."""
        self._writer.write_eof()
        await self.hang()

    async def hang(self) -> None:
        """Says nothing more, until the gateway closes the connection."""
        while await self._reader.read(65536):
            pass
        self._writer.close()


Play: TypeAlias = Callable[[Passage], Awaitable[None]]
"""What is done to an exchange. It begins with nothing read; it ends with the connection closed, or ready for the next request."""


class FaultProxy:
    """A proxy on a free port of 127.0.0.1, before what a client of the provider reaches.

    Without a play its port refuses connections: it is bound, so that nobody else gets it, and nobody listens there.

    Attributes:
        port: Where it is.
        requests: How many requests came.
    """

    def __init__(self, upstream: httpx.AsyncClient, play: Play | None) -> None:
        self.port = 0
        self.requests = 0
        self._play = play
        self._upstream = upstream
        self._socket = socket.socket()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._passages: set[Passage] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def tasks(self) -> set["asyncio.Task[None]"]:
        """Its own tasks, one a connection."""
        return self._tasks

    @property
    def busy(self) -> int:
        """How many connections are open and do not just wait for the next request."""
        return sum(1 for passage in self._passages if not passage.idle)

    def seen(self, asker: str) -> None:
        """Says that a client has seen the beginning of its answer."""
        for passage in self._passages:
            if passage.asker == asker:
                passage.seen.set()

    async def __aenter__(self) -> Self:
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        if self._play is not None:
            self._server = await asyncio.start_server(self._accept, sock=self._socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._play is not None
        try:
            while not writer.transport.is_closing():
                passage = Passage(reader, writer, self._upstream, self._next_number)
                self._passages.add(passage)
                try:
                    await self._play(passage)
                finally:
                    self._passages.discard(passage)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway has closed it
        finally:
            writer.transport.abort()

    def _next_number(self) -> int:
        self.requests += 1
        return self.requests
