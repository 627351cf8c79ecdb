"""An HTTP answer that repeats a provider's as it is on the wire: headers in order, the body as it comes, trailers, and 1xx.

aiohttp's own responses add headers, and know neither trailers nor informational answers. Above is `bridge.routes.proxy`; below is
the connection of aiohttp's server.
"""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from twinspan.v1 import proxy_pb2

_JOIN_BYTES: Final = 16 * 1024
_BODILESS: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED, HTTPStatus.RESET_CONTENT})


class ForwardedResponse(web.StreamResponse):
    """Such an answer. `begin` comes first, and aiohttp ends it."""

    def __init__(self, http: web.BaseRequest, head: proxy_pb2.ForwardResponseHead, *, keep_alive: bool) -> None:
        """Makes an answer of which nothing is sent yet.

        Args:
            http: What is answered.
            head: The provider's status and headers.
            keep_alive: Whether the client's connection can be used again.
        """
        super().__init__(status=head.status, reason=head.reason)
        self._http = http
        self._head = head
        self._ended = False
        self._modern = http.version >= HttpVersion11
        self._empty = http.method == "HEAD" or head.status in _BODILESS
        self._in_chunks = self._modern and not self._empty and not head.HasField("content_length")
        until_close = not (self._modern or self._empty or head.HasField("content_length"))
        self._keep_alive = keep_alive and http.keep_alive and not until_close

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 (aiohttp gives it)
        """Does nothing: `begin` has done it."""
        return None

    async def begin(self, own: Mapping[str, str]) -> None:
        """Sends status and headers.

        Args:
            own: The gateway's headers, which stand in the place of the provider's of the same name.

        Raises:
            ConnectionError: The client is gone.
        """
        names = {name.lower() for name in own}
        lines = [_status_line(self._head)]
        lines += _lines((header.name, header.value) for header in self._head.headers if header.name.lower() not in names)
        lines += _lines((name, value.encode()) for name, value in own.items())
        if self._head.HasField("content_length") and self._head.status != HTTPStatus.NO_CONTENT:
            lines.append(b"Content-Length: %d\r\n" % self._head.content_length)
        elif self._in_chunks:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        if not self._keep_alive:
            lines.append(b"Connection: close\r\n")
        elif not self._modern:
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"\r\n")
        await self._send(b"".join(lines))

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends a piece of the body; waits while the client reads too slowly.

        Raises:
            ConnectionError: The client is gone.
        """
        if not data or self._empty:
            return
        if not self._in_chunks:
            await self._send(data)
        elif len(data) <= _JOIN_BYTES:
            await self._send(b"".join((b"%x\r\n" % len(data), data, b"\r\n")))
        else:
            await self._send(b"%x\r\n" % len(data), data, b"\r\n")

    async def end(self, trailers: Sequence[proxy_pb2.ForwardHeader] = ()) -> None:
        """Ends the body; trailers go with one in chunks alone.

        Raises:
            ConnectionError: The client is gone.
        """
        if self._ended:
            return
        self._ended = True
        if self._in_chunks:
            await self._send(b"".join((b"0\r\n", *_lines((header.name, header.value) for header in trailers), b"\r\n")))

    async def write_eof(self, data: bytes = b"") -> None:
        """Ends the body, if that has not been done."""
        await self.write(data)
        await self.end()

    async def _send(self, *pieces: bytes | bytearray | memoryview) -> None:
        http = self._http
        transport = http.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("The client is gone.")
        http.writer.output_size += sum(map(len, pieces))
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)
        await http.protocol._drain_helper()  # noqa: SLF001 - there is no public way to wait


async def inform(http: web.BaseRequest, head: proxy_pb2.ForwardResponseHead) -> None:
    """Sends an informational answer (1xx), which clients of HTTP/1.0 do not know."""
    if http.version < HttpVersion11 or http.transport is None:
        return
    headers = b"".join(_lines((header.name, header.value) for header in head.headers))
    http.transport.write(_status_line(head) + headers + b"\r\n")


def _status_line(head: proxy_pb2.ForwardResponseHead) -> bytes:
    return f"HTTP/1.1 {head.status} {head.reason}\r\n".encode("ascii", "replace")


def _lines(headers: Iterable[tuple[str, bytes]]) -> list[bytes]:
    return [b"%s: %s\r\n" % (name.encode("latin-1"), value) for name, value in headers]
