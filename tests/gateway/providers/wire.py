"""A provider made of raw bytes, and a way to run a test against it on both event loops.

A `Wire` plays a script for each request that it reads: bytes are sent, CLOSE and RESET end the connection, and after the last step
it waits for the next request, which is also how a provider that hangs looks.
"""

import asyncio
import functools
import gc
import inspect
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self

import pytest
import uvloop

from gateway.providers.sender import OutboundRequest, Sender, Timeouts

SECRET = "hunter2"
AMPLE = Timeouts(connect=60.0, first_token=60.0, idle=60.0, total=60.0)


class Step(Enum):
    CLOSE = auto()
    """Says with FIN that nothing more comes, and waits for the gateway's own."""
    RESET = auto()
    """Ends the connection with RST."""
    DEAF = auto()
    """Leaves the request's body unread until the script's event is set, and then reads what there is."""


CLOSE, RESET, DEAF = Step.CLOSE, Step.RESET, Step.DEAF
Script = tuple[bytes | Step | asyncio.Event, ...]


@dataclass
class Peer:
    """One connection, seen from the provider."""

    writer: asyncio.StreamWriter
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the gateway has closed its socket."""

    def send(self, data: bytes) -> None:
        self.writer.write(data)


class Wire:
    """A provider on a free port of 127.0.0.1.

    An `asyncio.Event` in a script is waited for, so that a test says when the rest is sent.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.peers: list[Peer] = []
        self.scripts: list[Script] = [()]
        self.port = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}/v1/chat"

    @property
    def heads(self) -> list[bytes]:
        return [head for peer in self.peers for head in peer.heads]

    def plays(self, *scripts: Script) -> None:
        """Sets what the requests get, one script each; the last one is for all further ones."""
        self.scripts = list(scripts)

    async def requests(self, count: int) -> None:
        """Waits until so many requests have been read."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.heads) >= count)

    async def connections(self, count: int) -> None:
        """Waits until so many connections were made."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.peers) >= count)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(writer)
        async with self._arrived:
            self.peers.append(peer)
            self._arrived.notify_all()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                script = self.scripts[min(len(self.heads), len(self.scripts) - 1)]
                if DEAF not in script:
                    peer.bodies.append(await reader.readexactly(length))
                async with self._arrived:
                    peer.heads.append(head)
                    self._arrived.notify_all()
                if not await self._play(script, reader, writer):
                    return
                if DEAF in script:
                    peer.bodies.append(await reader.read())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            peer.gone.set()
            writer.transport.abort()

    async def _play(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step is RESET:
                made = writer.get_extra_info("socket")
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            elif step is CLOSE:
                writer.write_eof()
                await reader.read()
                return False
        return True


def head(status: str = "200 OK", **headers: str | int) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


def whole(body: bytes, status: str = "200 OK", **headers: str | int) -> bytes:
    """An answer with a Content-Length."""
    return head(status, content_length=len(body), **headers) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = head(content_type="text/event-stream", transfer_encoding="chunked")
END = b"0\r\n\r\n"


def outbound(
    url: str, *, timeouts: Timeouts = AMPLE, repeatable: bool = True, body: bytes = b"{}", **headers: str
) -> OutboundRequest:
    return OutboundRequest(
        url=url,
        headers={"Authorization": f"Bearer {SECRET}", **headers},
        body=body,
        timeouts=timeouts,
        provider="acme",
        model="m-1",
        repeatable=repeatable,
    )


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test with its `wire` and its `sender` on asyncio's loop and on uvloop, and checks that nothing is left over."""

    async def play(**arguments: object) -> None:
        # Tests wait by `soon`; this is for what cannot be waited for so, and leaves room for a machine with more to do than this.
        async with asyncio.timeout(30), Wire() as wire, Sender() as sender:
            await test(wire=wire, sender=sender, **arguments)
            assert sender.open_responses == 0
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            # asyncio's own tasks for accepted connections end some turns after these. A leaked one waits for nothing that comes.
            _, left = await asyncio.wait(left, timeout=1)
        assert not left, left

    @functools.wraps(test)
    def run(loop: str, **arguments: object) -> None:
        before = sockets()
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(play(**arguments))
        gc.collect()
        after = sockets()
        assert after <= before, f"{after - before} sockets were left open"

    parameters = [parameter for name, parameter in inspect.signature(test).parameters.items() if name not in {"wire", "sender"}]
    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # This is how pytest learns of the parameters. It would look through the mark that `wraps` leaves.
    vars(run)["__signature__"] = inspect.Signature([loop, *parameters])
    del vars(run)["__wrapped__"]
    pytest.mark.parametrize("loop", LOOPS)(run)
    return run


def sockets() -> int:
    """How many sockets this process holds open."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += str(descriptor.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue
    return count


async def soon(awaitable: Awaitable[object]) -> None:
    """Waits for what must happen, but no longer than five seconds."""
    async with asyncio.timeout(5):
        await awaitable
