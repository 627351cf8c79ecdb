"""A provider's answer, as it comes in: status and headers at once, the body piece by piece.

Below is one pooled connection of aiohttp's connector; `gateway.providers.sender` takes it, writes the request and calls `begin`.
Above are the provider adapters. An answer is read by one task at a time. It knows nothing of events or JSON.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Final

from aiohttp import ClientError, ClientPayloadError, hdrs
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from twinspan.v1.errors_pb2 import ErrorKind
from yarl import URL

from gateway.providers.content_coding import ContentCodingError, ContentDecoder
from gateway.providers.send_error import Phase, SendError, Upstream, broken, closed, misanswered, timed_out
from gateway.providers.timeouts import LOOK_SECONDS, Timeouts, Watch, Watched

_LINGER_SECONDS: Final = 1.0

_MAX_INFORMATIONAL: Final = 16
"""How many informational answers (1xx) may come before the final one."""

TRANSPORT_ERRORS: Final = (ClientError, HttpProcessingError, OSError)
"""What aiohttp raises when a connection or what came over it is broken."""


class UpstreamResponse(Watched):
    """The answer to one request. Whoever got it must read it to its end or close it; `contextlib.closing` does the latter.

    Attributes:
        status: The HTTP status, 200 to 599. Error statuses are answers like any other.
        headers: The headers, by names in any case.
    """

    __slots__ = ("_connection", "_decoder", "_failure", "_loop", "_released", "_upstream", "_watch", "headers", "status")

    status: int
    headers: Mapping[str, str]

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        watch: Watch,
        connection: Connection,
        upstream: Upstream,
        timeouts: Timeouts,
        sent_at: float,
        total_at: float,
    ) -> None:
        super().__init__(timeouts, sent_at, total_at)
        self._loop = loop
        self._watch = watch
        self._connection: Connection | None = connection
        self._upstream = upstream
        self._decoder: ContentDecoder | None = None
        self._failure: SendError | None = None
        self._released = False
        watch.add(self, min(sent_at + min(timeouts.first_token, timeouts.idle, LOOK_SECONDS), total_at))

    def next_piece(self) -> Awaitable[bytes]:
        r"""Waits for the next piece of the body and returns it: all that has arrived, or b"" at the end, and again after the end.

        Pieces say nothing about the borders of events or chunks. What arrived before the connection broke is returned first. Once
        b"" was returned, and often with the last piece, the connection is back in the pool. Cancellation closes the socket at once.

        Raises:
            SendError: PROVIDER_TIMEOUT if it takes too long, NETWORK_ERROR if the body ends before its end, PROVIDER_ERROR if
                it cannot be unpacked, CANCELLED if the answer was closed.
        """
        # A plain function, so that a piece passes through one coroutine fewer on its way.
        return self._receive() if self._decoder is None else self._receive_decoded(self._decoder)

    async def read(self, limit_bytes: int, *, cut: bool = False) -> bytes:
        """Waits for the whole body, unpacked, and returns it.

        Args:
            limit_bytes: How long it may be.
            cut: Whether to close a longer one and return its beginning, which is enough of an error's page, instead of raising.

        Raises:
            SendError: PROVIDER_ERROR if it is longer than `limit_bytes`, else as `next_piece` does.
        """
        content = self._content
        if content is not None and content.is_eof() and self._decoder is None and self._failure is None:
            # A short answer is whole when its headers are. Nothing has to be waited for.
            body = content.read_nowait()
            self._settle()
        else:
            pieces: list[bytes] = []
            size = 0
            while size <= limit_bytes and (piece := await self.next_piece()):
                size += len(piece)
                pieces.append(piece)
            body = b"".join(pieces)
        if len(body) <= limit_bytes:
            return body
        if cut:
            self.close()
            return body[:limit_bytes]
        raise self.fail(self._misanswered(f"answered with more than {limit_bytes} bytes. Ask for less in one answer."))

    def release(self) -> None:
        """Ends the exchange of which nothing of use is left to come, such as a stream after its `[DONE]`.

        The body's end often comes just after that. The connection goes back to the pool when it does, and is closed if it does not
        within a second. Nothing is read after this, and a `close` changes nothing.
        """
        content = self._content
        if self._connection is None or content is None:
            return
        self._released = True
        self._total_at = self._loop.time() + _LINGER_SECONDS
        self._watch.add(self, self._total_at)
        content.on_eof(self._settle)

    def close(self) -> None:
        """Ends the exchange. The connection goes back to the pool if the body has come whole, else its socket is closed at once.

        Closing twice is closing once. A task that is waiting for a piece gets CANCELLED.
        """
        if self._connection is None or self._released:
            return
        if self._content is not None and self._content.is_eof():
            self._settle()
            return
        self.abort()

    def abort(self) -> None:
        """Closes the socket at once. A task that is waiting for a piece gets CANCELLED."""
        self.fail(closed(self._upstream, self._phase()))

    async def begin(self) -> None:
        """Waits for the answer's headers, for the sender, which has just written the request.

        Raises:
            SendError: PROVIDER_TIMEOUT, PROVIDER_ERROR for an answer that cannot be one, or CANCELLED.
            Exception: One of TRANSPORT_ERRORS, for the sender to judge. The answer is not closed then.
        """
        connection = self._connection
        if connection is None or connection.protocol is None:
            raise closed(self._upstream, Phase.FIRST_TOKEN)
        message, content = await connection.protocol.read()
        informational = 0
        while 100 <= message.code < 200 and message.code != 101 and informational < _MAX_INFORMATIONAL:
            informational += 1
            message, content = await connection.protocol.read()
        if message.code in {301, 302, 303, 307, 308}:
            where = _origin(message.headers.get(hdrs.LOCATION))
            raise self._misanswered(f"answered with HTTP status {message.code}{where}, which is not followed. Correct its url.")
        if not 200 <= message.code <= 599:
            raise self._misanswered(f"answered with HTTP status {message.code}, which is no final answer. Check its url.")
        self.status = message.code
        self.headers = message.headers
        self._content = content
        coding = message.headers.get(hdrs.CONTENT_ENCODING)
        if coding is not None and coding.lower() != "identity" and (content.total_bytes or not content.is_eof()):
            self._decoder = self._make_decoder(coding)

    def fail(self, failure: SendError) -> SendError:
        """Closes the socket at once, wakes whoever waits with `failure`, and returns it. Later reads raise it as well.

        For the sender; others `close`.
        """
        self._failure = failure
        connection, self._connection = self._connection, None
        if connection is None:
            return failure
        self._watch.discard(self)
        waiting = self._content if self._content is not None else connection.protocol
        if waiting is not None and waiting.exception() is None:
            waiting.set_exception(failure)
        # A plain close would first flush what the provider has not taken yet, or wait for its farewell in TLS.
        if connection.transport is not None:
            connection.transport.abort()
        connection.close()
        return failure

    async def _receive(self) -> bytes:
        content = self._content
        if self._failure is not None:
            if rest := self._rest():
                return rest
            raise self._failure
        if self._connection is None or content is None:
            return b"" if content is None else content.read_nowait()
        self._waiting_since = self._loop.time()
        try:
            piece = await content.readany()
        except TRANSPORT_ERRORS as error:
            failure = self.fail(broken(self._upstream, self._phase(), error))
            if rest := self._rest():
                return rest
            raise failure from error
        except asyncio.CancelledError:
            self.abort()
            raise
        self._waiting_since = None
        if content.at_eof():
            self._settle()
        return piece

    async def _receive_decoded(self, decoder: ContentDecoder) -> bytes:
        while True:
            data = b"" if decoder.pending else await self._receive()
            try:
                if not data and not decoder.pending:
                    decoder.finish()
                    return b""
                output = decoder.decode(data)
            except ContentCodingError as error:
                raise self.fail(self._misanswered(str(error))) from error
            if output:
                return output

    def _rest(self) -> bytes:
        """Takes what had arrived when the connection broke. aiohttp gives out its error first, but readers should get it all."""
        if self._content is None or self._failure is None or self._failure.kind != ErrorKind.ERROR_KIND_NETWORK_ERROR:
            return b""
        buffer = self._content._buffer  # noqa: SLF001 - there is no public way to it once the body has failed
        rest = b"".join(buffer)
        buffer.clear()
        return rest

    def _make_decoder(self, coding: str) -> ContentDecoder:
        try:
            return ContentDecoder(coding)
        except ContentCodingError as error:
            raise self._misanswered(str(error)) from error

    def _is_lost(self) -> bool:
        if self._connection is None or self._connection.transport is not None:
            return False
        self.fail(broken(self._upstream, self._phase(), ClientPayloadError()))
        return True

    def _expire(self, phase: Phase, seconds: float) -> None:
        self.fail(timed_out(self._upstream, phase, seconds))

    def _phase(self) -> Phase:
        return Phase.BODY if self._content is not None and self._content.total_bytes else Phase.FIRST_TOKEN

    def _misanswered(self, what: str) -> SendError:
        return misanswered(self._upstream, self._phase(), what)

    def _settle(self) -> None:
        """Hands the connection back; aiohttp pools it if it can be used again."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._watch.discard(self)
        transport = connection.transport
        if transport is not None and transport.get_write_buffer_size():
            # It answered without having read the request, the rest of which would go before the next one.
            transport.abort()
            connection.close()
        connection.release()


def _origin(location: str | None) -> str:
    """Says where a redirect leads, as far as that can hold no secret."""
    try:
        return f" (to {URL(location).origin()})" if location is not None else ""
    except ValueError:
        # Relative, or no URL at all.
        return ""
