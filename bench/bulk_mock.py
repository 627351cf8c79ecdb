"""The upstream of W5: takes any body, and answers `GET /BYTES` with so many bytes, as fast as they are taken."""

import argparse
import asyncio
from typing import cast

from bench import child

_PIECE = bytes(256 * 1024)
_GET = b"GET /"


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._transport: asyncio.Transport | None = None
        self._to_send = 0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is none by name

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._take(len(data))
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._head = b""
        assert self._transport is not None
        if head.startswith(_GET):
            self._to_send = int(head.removeprefix(_GET).partition(b" ")[0])
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._to_send)
            self._send()
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        self._left = int(fields[b"content-length"])
        self._take(len(rest))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send()

    def _take(self, count: int) -> None:
        self._left -= count
        if not self._left:
            assert self._transport is not None
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def _send(self) -> None:
        assert self._transport is not None
        while self._to_send and not self._paused:
            piece = _PIECE[: self._to_send]
            self._to_send -= len(piece)
            self._transport.write(piece)


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, child.HOST, 0)
    child.ready(port=child.port_of(server))
    await child.until_stopped()
    server.close()


if __name__ == "__main__":
    argparse.ArgumentParser(description="The upstream of W5, by itself.").parse_args()
    child.run(_main())
