"""One request that is streamed to a provider, and its answer as it is on the wire: codings, redirects, 1xx and trailers untouched.

Above is `gateway.forwarding`; `gateway.providers.raw_sender` makes it, with the request's head written. The chat road does not pass
here: it has `UpstreamResponse`, which this extends by what only forwarding needs.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, cast

from aiohttp import ClientOSError, ServerDisconnectedError, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from gateway.providers.send_error import Phase, Upstream, broken, closed, timed_out
from gateway.providers.timeouts import Timeouts, Watch
from gateway.providers.upstream import TRANSPORT_ERRORS, UpstreamResponse

TAIL_BYTES: Final = 16 * 1024
"""How much of the end of what came in is kept for the trailers, which aiohttp's parser drops."""

_JOIN_BYTES: Final = 16 * 1024
_LAST_CHUNK: Final = re.compile(rb"0+[ \t]*(?:;.*)?")
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Head:
    """The status line and the headers of an answer.

    Attributes:
        status: The HTTP status, 100 to 599.
        reason: The words beside it.
        headers: All headers, in order, as they came.
        fields: The same by name in any case.
    """

    status: int
    reason: str
    headers: Sequence[tuple[bytes, bytes]]
    fields: Mapping[str, str]

    @property
    def informational(self) -> bool:
        """Whether another head follows."""
        return 100 <= self.status < 200 and self.status != 101


class RawProtocol(ResponseHandler):
    """aiohttp's protocol, which also keeps the end of what came in."""

    tail = b""

    def data_received(self, data: bytes) -> None:
        """Takes what came in."""
        self.tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (self.tail + data)[-TAIL_BYTES:]
        super().data_received(data)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Goes on reading if that was paused; see `gateway.providers.sender`."""
        if self._reading_paused:
            super().resume_reading(resume_parser)


class RawExchange(UpstreamResponse):
    """A request under way. One task may write while another reads; whoever got it must close it.

    Attributes:
        trailers: What followed the body, once that has ended.
        stale: Whether the answer failed because a pooled connection turned out to be closed.
    """

    __slots__ = ("_chunked", "_ended", "_idle_seconds", "_pooled", "_remaining", "stale", "trailers")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        watch: Watch,
        connection: Connection,
        upstream: Upstream,
        timeouts: Timeouts,
        sent_at: float,
        *,
        pooled: bool,
        content_length: int | None,
    ) -> None:
        super().__init__(loop, watch, connection, upstream, timeouts, sent_at, sent_at + timeouts.total)
        self._first_at = inf  # nobody can be late while the request is not sent
        self._pooled = pooled
        self._remaining = content_length
        self._ended = False
        self._chunked = False
        self._idle_seconds = timeouts.idle
        self.stale = False
        self.trailers: Sequence[tuple[bytes, bytes]] = ()
        if content_length == 0:
            self._sent()

    @property
    def protocol(self) -> RawProtocol | None:
        """The protocol of the connection; None once that is closed."""
        connection = self._connection
        return cast("RawProtocol | None", connection.protocol) if connection is not None else None

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport of the connection; None once that is closed."""
        connection = self._connection
        return connection.transport if connection is not None else None

    async def write(self, piece: bytes) -> None:
        """Sends a piece of the body; waits while the provider reads too slowly. If the connection is gone, nothing happens.

        Raises:
            SendError: PROVIDER_TIMEOUT if the provider takes nothing for the idle timeout.
        """
        transport = self.transport
        if transport is None or not piece:
            return
        if self._remaining is None:
            head = b"%x\r\n" % len(piece)
            if len(piece) <= _JOIN_BYTES:
                transport.write(b"".join((head, piece, b"\r\n")))
            else:
                transport.writelines((head, piece, b"\r\n"))
        else:
            self._remaining -= len(piece)
            transport.write(piece)
            if self._remaining == 0:
                self._sent()
        await self.drain()

    async def drain(self) -> None:
        """Waits while the provider reads too slowly.

        Raises:
            SendError: PROVIDER_TIMEOUT if the provider takes nothing for the idle timeout.
        """
        protocol = self.protocol
        if protocol is None or not protocol._paused:  # noqa: SLF001 - there is no public way to ask
            return
        try:
            async with asyncio.timeout(self._idle_seconds):
                await protocol._drain_helper()  # noqa: SLF001 - there is no public way to wait
        except TimeoutError:
            raise self.fail(timed_out(self._upstream, Phase.BODY, self._idle_seconds)) from None
        except TRANSPORT_ERRORS:
            return  # whoever reads the answer learns of it; the provider may have answered before it closed

    def end(self, trailers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Ends the body; trailers go with one of unknown length alone."""
        transport = self.transport
        if transport is not None and self._remaining is None and not self._ended:
            lines = [b"0\r\n", *(b"%s: %s\r\n" % (name.encode(), value) for name, value in trailers), b"\r\n"]
            transport.write(b"".join(lines))
        self._sent()

    async def next_head(self) -> Head:
        """Waits for the next head, be it informational or final, and returns it.

        Raises:
            SendError: There is none.
        """
        protocol = self.protocol
        if self._failure is not None:
            raise self._failure
        if protocol is None:
            raise closed(self._upstream, Phase.FIRST_TOKEN)
        try:
            message, content = await protocol.read()
        except TRANSPORT_ERRORS as error:
            self.stale = self._pooled and _is_silent(error)
            raise self.fail(broken(self._upstream, Phase.FIRST_TOKEN, error)) from error
        except asyncio.CancelledError:
            self.abort()
            raise
        self._pooled = False
        head = Head(message.code, message.reason or "", message.raw_headers, message.headers)
        if not 100 <= head.status <= 599:
            raise self.fail(self._misanswered(f"answered with HTTP status {head.status}, which is none. Check its url."))
        if not head.informational:
            self.status, self.headers, self._content = head.status, head.fields, content
            self._chunked = message.chunked
        return head

    def upgraded(self) -> None:
        """Notes that the connection is no HTTP any more: no limit holds for it, and it is never used again."""
        self._content = cast("StreamReader | None", None)
        self._watch.discard(self)

    def _sent(self) -> None:
        if self._ended:
            return
        self._ended = True
        now = self._loop.time()
        self._first_at = now + self._timeouts.first_token
        if self._connection is not None:
            self._watch.add(self, min(self._first_at, now + self._timeouts.idle, self._total_at))

    def _settle(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._chunked and isinstance(connection.protocol, RawProtocol):
            self.trailers = trailers_in(connection.protocol.tail)
        if self._ended:
            super()._settle()
            return
        # It answered without having read the request, the rest of which would go before the next one.
        self._connection = None
        self._watch.discard(self)
        if connection.transport is not None:
            connection.transport.abort()
        connection.close()


def trailers_in(tail: bytes) -> list[tuple[bytes, bytes]]:
    """Returns the trailers of a body in chunks, of which this is the end, in order.

    They are the lines after the last chunk's, which is the last line that is no header. Those that are too long are left out whole.
    """
    if tail.endswith(b"\r\n0\r\n\r\n"):
        return []
    lines = tail.split(b"\r\n")
    found: list[tuple[bytes, bytes]] = []
    for line in reversed(lines[:-2]):
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            return found[::-1] if _LAST_CHUNK.fullmatch(line) else []
        found.append((name, value.strip(b" \t")))
    return []


def _is_silent(error: Exception) -> bool:
    if isinstance(error, ServerDisconnectedError):
        return isinstance(error.message, str)
    return isinstance(error, ClientOSError)
