"""What supervisor and worker say to each other, and how it is written: a length of four bytes, and as much MessagePack.

The pair of sockets between them is the worker's tie to life: either end notices when the other one's process ends, however it does.
"""

import asyncio
import socket
import struct
from typing import Final, Self, TypeAlias

import msgspec

from gateway.app import LocalEndpoint, Standing

_LENGTH: Final = struct.Struct("!I")


class Begin(msgspec.Struct, tag=True, frozen=True):
    """To a worker, first of all: what it is to do."""

    config: str | None
    """The configuration's path, as it was given."""
    group: str
    """The name that all workers use directories under."""
    rest_sockets: list[int]
    """What to listen on for REST: descriptors that it has inherited."""
    grpc_port: int
    token: str | None
    """The administrator's token, if it was made for this run."""
    state_url: str
    local: LocalEndpoint | None
    """Where the embedded models answer, if they run."""


class Tell(msgspec.Struct, tag=True, frozen=True):
    """To a worker: tell what you have counted."""

    id: int


class Reload(msgspec.Struct, tag=True, frozen=True):
    """To a worker: read the configuration again."""

    id: int


class Drain(msgspec.Struct, tag=True, frozen=True):
    """To a worker: let requests under way end, and end yourself. If it is to `hand_over`, another worker has taken its place."""

    hand_over: bool


class Told(msgspec.Struct, tag=True, frozen=True):
    """From a worker: what it has counted; with the `id` 0 without having been asked."""

    id: int
    core: bytes
    http: list[tuple[str, str, int, int]]
    """HTTP requests by method, route and status."""


class Gather(msgspec.Struct, tag=True, frozen=True):
    """From a worker: what have all counted? It tells its own."""

    id: int
    own: Told


class All(msgspec.Struct, tag=True, frozen=True):
    """To a worker: what all have counted."""

    id: int
    told: list[Told]
    standing: Standing


class AskReload(msgspec.Struct, tag=True, frozen=True):
    """From a worker: have all read the configuration again."""

    id: int


class Reloaded(msgspec.Struct, tag=True, frozen=True):
    """From a worker, and to one that has asked: what came of reading the configuration again."""

    id: int
    mistakes: str
    sources: list[str]
    warnings: list[str]
    processes: int


class Ready(msgspec.Struct, tag=True, frozen=True):
    """From a worker: it serves."""

    url: str
    grpc_url: str
    models: list[str]


class Failed(msgspec.Struct, tag=True, frozen=True):
    """From a worker: it cannot serve, for a reason that the user can put right."""

    message: str
    exit_code: int


Message: TypeAlias = Begin | Tell | Reload | Drain | Told | Gather | All | AskReload | Reloaded | Ready | Failed


class Link:
    """One end of the pair of sockets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes over a connection; use `over`."""
        self._reader = reader
        self._writer = writer
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """Returns the end that a socket is."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: Message) -> None:
        """Sends a message; to an end that is gone, nothing."""
        body = self._encoder.encode(message)
        if not self._writer.is_closing():
            self._writer.write(_LENGTH.pack(len(body)) + body)

    async def flush(self) -> None:
        """Waits until the messages are on their way.

        Raises:
            OSError: The other end is gone.
        """
        await self._writer.drain()

    async def receive(self) -> Message | None:
        """Returns what the other end says next; None once it is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return None
        return self._decoder.decode(body)

    def close(self) -> None:
        """Closes this end."""
        self._writer.close()
