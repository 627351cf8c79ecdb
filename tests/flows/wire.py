"""HTTP by hand, for what no client and no server library would write: a provider that plays a script, and a client of raw bytes."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Self, TypeAlias

Play: TypeAlias = Callable[["Taken", asyncio.StreamWriter], Awaitable[None]]


class Taken:
    """A request as it came in, whose head has been read."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader) -> None:
        self.head = head
        self.reader = reader
        self.gone = asyncio.Event()
        """Set once the client's side of the connection has ended."""
        line, *fields = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = line.split(" ")
        self.fields = [tuple(field.split(": ", 1)) for field in fields if field]

    def field(self, name: str) -> str | None:
        """Returns the value of a header; None if there is none."""
        return next((value for field, value in self.fields if field.lower() == name.lower()), None)

    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.fields}

    async def body(self) -> bytes:
        """Reads the body as it is framed, chunks and trailers included."""
        if self.field("Transfer-Encoding"):
            raw = await self.reader.readuntil(b"0\r\n")
            while not raw.endswith(b"\r\n\r\n"):
                raw += await self.reader.readuntil(b"\r\n")
            return raw
        return await self.reader.readexactly(int(self.field("Content-Length") or 0))


class Wire:
    """A provider on a free port of 127.0.0.1 that answers each request by a script."""

    def __init__(self, play: Play, tls: ssl.SSLContext | None = None) -> None:
        self.play = play
        self._tls = tls
        self.taken: list[Taken] = []
        self.arrived = asyncio.Event()
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                taken = Taken(head.removesuffix(b"\r\n\r\n"), reader)
                self.taken.append(taken)
                self.arrived.set()
                await self.play(taken, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for taken in self.taken:
                taken.gone.set()
            writer.close()


def answers(raw: bytes) -> Play:
    """Reads the request whole, and answers with these bytes."""

    async def play(taken: Taken, writer: asyncio.StreamWriter) -> None:
        taken.head += b"\r\n\r\n" + await taken.body()
        writer.write(raw)

    return play


async def raw_exchange(port: int, request: bytes, *, until: bytes = b"") -> bytes:
    """Sends bytes to a server and returns what it sends until it closes, or until what came ends with `until`."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            await writer.drain()
            came = b""
            while piece := await reader.read(65536):
                came += piece
                if until and came.endswith(until):
                    break
            return came
        finally:
            writer.close()
            await writer.wait_closed()
