"""A client of HTTP/2 that no client library would make: it answers nothing and says what it is told to (RFC 9113)."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.contract.channel_harness import soon


class Http2Peer:
    """A connection that has been greeted as HTTP/2 wants it."""

    SETTINGS, PING, GOAWAY = 4, 6, 7
    ACK = 1

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, target: str) -> AsyncIterator["Http2Peer"]:
        host, _, port = target.rpartition(":")
        reader, writer = await soon(asyncio.open_connection(host, int(port)))
        try:
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + cls._frame(cls.SETTINGS))
            yield cls(reader, writer)
        finally:
            writer.close()
            await soon(asyncio.gather(writer.wait_closed(), return_exceptions=True))

    def ping(self, times: int) -> None:
        self._writer.write(self._frame(self.PING, b"8 octets") * times)

    async def read(self, kind: int) -> tuple[int, bytes]:
        """Returns flags and content of the next frame of a kind; the others are skipped.

        Raises:
            EOFError: The server has closed the connection.
            ConnectionResetError: The same, with something on its way to it.
        """
        while True:
            head, flags, _stream = struct.unpack(">IBI", await self._reader.readexactly(9))
            content = await self._reader.readexactly(head >> 8)
            if head & 0xFF == kind:
                return flags, content

    @staticmethod
    def _frame(kind: int, content: bytes = b"") -> bytes:
        return struct.pack(">IBI", len(content) << 8 | kind, 0, 0) + content
