"""The one place from which HTTP requests go to providers.

Above are the provider adapters, which make an `OutboundRequest` and read an `UpstreamResponse`. Below is aiohttp: its connector
(pool, DNS, TLS) and its HTTP parser, without `ClientSession`, which costs more than all of this together (the figures are in
docs/adr/0002-outbound-sender.md). Retries, breakers and fallbacks are not made here.

What goes out is what the caller gave and nothing else: no cookies, no proxy or netrc from the environment, no redirect followed,
and no compression asked for, since unpacking costs more than a local network does and a compressed stream comes in lumps.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from math import inf
from types import TracebackType
from typing import Final, Self

from aiohttp import ClientOSError, ClientRequest, ClientTimeout, ServerDisconnectedError, TCPConnector, encode_basic_auth
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.http import StreamWriter
from twinspan.v1.errors_pb2 import ErrorKind
from yarl import URL

from gateway.errors import GatewayError
from gateway.providers.send_error import Phase, SendError, Upstream, broken, closed, timed_out
from gateway.providers.timeouts import Timeouts, Watch
from gateway.providers.upstream import TRANSPORT_ERRORS, UpstreamResponse

__all__ = ["OutboundRequest", "Phase", "SendError", "Sender", "Timeouts", "UpstreamResponse"]

_OWN_HEADERS: Final = frozenset({"accept-encoding", "connection", "content-length", "host", "transfer-encoding"})
"""Headers that the sender writes. Of these a caller can set `Host` alone; the others are left out, as they must fit the message."""

_READ_BUFFER_BYTES: Final = 64 * 1024
"""Reading from a socket stops while twice this much waits for a slow reader."""

_JOIN_BYTES: Final = 16 * 1024
"""Up to this size, copying a body behind its head is cheaper than handing over two buffers."""

_KEEPALIVE_PROBE_SECONDS: Final = 60
"""How long a connection is silent before the system probes it."""

_STALE_SECONDS: Final = 1.0
"""A pooled connection that was closed while it idled says so within a round trip. Later, it was the request that failed."""


@dataclass(slots=True)
class OutboundRequest:
    """A request to a provider.

    Attributes:
        url: Where it goes: http or https. Userinfo in it becomes basic authentication. URLs met often are best given as one object.
        headers: What is sent, besides framing and `Host`, as it is.
        body: The whole body; or its pieces, which are sent as they come, and of which nothing can be sent twice.
        timeouts: The limits of its phases.
        provider: The provider's name, for errors.
        model: The model's name, for errors.
        method: The HTTP method.
        repeatable: Whether it may reach the provider twice, if a pooled connection turns out to be closed. True fits inference, of
            which a repetition changes nothing but, at worst, the bill. It must be False for whatever creates something there.
    """

    url: URL | str
    headers: Mapping[str, str]
    body: bytes | AsyncIterator[bytes]
    timeouts: Timeouts
    provider: str
    model: str
    method: str = "POST"
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class _Target:
    """What a URL comes to, computed once."""

    request: ClientRequest
    """What the connector knows a host by. It is never sent."""
    path: str
    host: str
    authority: str
    basic: str | None


class _Protocol(ResponseHandler):
    """aiohttp's protocol, which in version 3.14 resumes reading with every piece that is taken, although nothing has paused it.

    That costs a tenth of what a piece of a stream costs: the parser is run on nothing, and the transport is told what it knows.
    """

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)


class Sender:
    """Sends requests and returns their answers. One per event loop; start it inside the loop, and close it.

    Args:
        max_connections: The most connections at a time, over all hosts; 0 means no limit.
        keepalive_seconds: How long an idle connection is kept for the next request.
        dns_cache_seconds: How long a resolved name is remembered.
        ssl_context: What https trusts; the system's authorities if None.

    Attributes:
        protocol: Reads what comes over a connection.
    """

    protocol: type[ResponseHandler] = _Protocol

    def __init__(
        self,
        *,
        max_connections: int = 0,
        keepalive_seconds: float = 30.0,
        dns_cache_seconds: int = 30,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._max_connections = max_connections
        self._keepalive_seconds = keepalive_seconds
        self._dns_cache_seconds = dns_cache_seconds
        self._ssl_context = ssl_context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connector: TCPConnector | None = None
        self._connecting: set[asyncio.Task[object] | None] = set()
        self._sockets_made = 0
        self._watch: Watch | None = None
        self._target = lru_cache(maxsize=256)(self._find_target)
        self._connect_timeout = lru_cache(maxsize=64)(_connect_timeout)

    @property
    def open_responses(self) -> int:
        """How many requests are under way: sent, and their answers neither read to the end nor closed."""
        return len(self._watch) if self._watch is not None else 0

    async def start(self) -> None:
        """Makes the connection pool. Nothing is connected yet."""
        self._loop = asyncio.get_running_loop()
        self._watch = Watch(self._loop)
        self._connector = TCPConnector(
            limit=self._max_connections,
            keepalive_timeout=self._keepalive_seconds,
            ttl_dns_cache=self._dns_cache_seconds,
            ssl=self._ssl_context if self._ssl_context is not None else True,
            socket_factory=self._make_socket,
        )
        # There is no public way to another protocol.
        self._connector._factory = partial(self.protocol, self._loop)  # noqa: SLF001

    async def close(self) -> None:
        """Closes all connections at once. Whoever still waits for a connection or reads an answer gets CANCELLED."""
        connector, self._connector = self._connector, None
        for task in tuple(self._connecting):
            if task is not None:
                task.cancel()
        watch, self._watch = self._watch, None
        if watch is not None:
            for response in tuple(watch):
                response.abort()
            watch.close()
        if connector is not None:
            await connector.close()
        self._target.cache_clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def send(self, request: OutboundRequest) -> UpstreamResponse:
        """Sends `request` and returns the answer once its headers are in, whatever its status.

        Cancellation closes the socket at once.

        Raises:
            SendError: NETWORK_ERROR if there was no answer, PROVIDER_TIMEOUT if it took too long, PROVIDER_ERROR if it was a
                redirect or packed in an unknown way. Its `request_sent` tells whether the provider may have acted on the request.
            GatewayError: NOT_CONFIGURED if the URL is not one that can be sent to, INVALID_REQUEST if a header holds a line break.
        """
        loop, watch, connector = self._loop, self._watch, self._connector
        if loop is None or watch is None or connector is None:
            raise RuntimeError("the sender is not started")
        try:
            target = self._target(request.url)
        except ValueError as error:
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_CONFIGURED,
                f"The url of the provider '{request.provider}' cannot be sent to. Give it as http://host/path or https://host/path.",
                provider=request.provider,
                model=request.model,
            ) from error
        head = _write_head(request, target)
        upstream = Upstream(request.provider, request.model, target.authority)
        total_at = loop.time() + request.timeouts.total

        repeated = False
        while True:
            connection, pooled = await self._connect(connector, target, upstream, request.timeouts, fresh=repeated)
            sent_at = loop.time()
            response = UpstreamResponse(loop, watch, connection, upstream, request.timeouts, sent_at, total_at)
            try:
                _write(connection, head, request)
                if isinstance(request.body, bytes):
                    await response.begin()
                else:
                    await _begin_while_sending(connection, request.body, response, loop)
            except TRANSPORT_ERRORS as error:
                failure = response.fail(broken(upstream, Phase.FIRST_TOKEN, error))
                stale = pooled and _is_silent(error) and loop.time() - sent_at < _STALE_SECONDS
                if stale and request.repeatable and not repeated and isinstance(request.body, bytes):
                    repeated = True
                    continue
                failure.repeated = repeated
                raise failure from error
            except SendError as failure:
                failure.repeated = repeated
                response.fail(failure)
                raise
            except BaseException:
                response.close()
                raise
            return response

    async def _connect(
        self, connector: TCPConnector, target: _Target, upstream: Upstream, timeouts: Timeouts, *, fresh: bool
    ) -> tuple[Connection, bool]:
        """Returns a connection, and whether it comes from the pool, where the host may have closed it unseen.

        With `fresh` it does not, and the host's idle connections are closed: where one turned out to be dead, others are.
        """
        seconds = min(timeouts.connect, timeouts.total)
        # To be told the loop saves asyncio from finding it, which costs twice as much as all else here.
        task = asyncio.current_task(self._loop)
        self._connecting.add(task)
        try:
            while True:
                made = self._sockets_made
                connection = await connector.connect(target.request, traces=[], timeout=self._connect_timeout(seconds))
                # Waiting for a place in a full pool can make a pooled connection look new here. Then it is not retried: no harm.
                pooled = made == self._sockets_made
                if not pooled or not (fresh or (connection.protocol is not None and connection.protocol.should_close)):
                    return connection, pooled
                # If something came over it while it idled, that must not be read as the answer to this request.
                connection.close()
        except TimeoutError as error:
            raise timed_out(upstream, Phase.CONNECT, seconds) from error
        except TRANSPORT_ERRORS as error:
            raise broken(upstream, Phase.CONNECT, error) from error
        except asyncio.CancelledError:
            # `close` cancels whoever is here, once. What remains after that is the caller's own cancellation.
            if self._connector is connector or task is None or task.uncancel():
                raise
            raise closed(upstream, Phase.CONNECT) from None
        finally:
            self._connecting.discard(task)

    def _make_socket(self, address: AddrInfoType) -> socket.socket:
        self._sockets_made += 1
        made = socket.socket(*address[:3])
        # A model may think for minutes without a byte, and address translation on the way forgets silent connections.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_PROBE_SECONDS)
        return made

    def _find_target(self, url: URL | str) -> _Target:
        url = URL(url)
        if url.scheme not in {"http", "https"} or not url.raw_host:
            raise ValueError("not an absolute http or https URL")
        bare = url.with_user(None)
        return _Target(
            request=ClientRequest("POST", bare, loop=self._loop),
            path=url.raw_path_qs,
            host=url.host_port_subcomponent or url.raw_host,
            authority=f"{url.host_subcomponent}:{url.port}",
            basic=encode_basic_auth(url.user or "", url.password or "") if url.raw_user or url.raw_password else None,
        )


def _connect_timeout(seconds: float) -> ClientTimeout:
    # aiohttp rounds up limits over the threshold to whole seconds.
    return ClientTimeout(connect=seconds, ceil_threshold=inf)


def _write_head(request: OutboundRequest, target: _Target) -> bytes:
    """Returns the request's head.

    Raises:
        GatewayError: INVALID_REQUEST, if a header holds a control character that would end it.
    """
    headers: Collection[tuple[str, str]] = request.headers.items()
    host = target.host
    if target.basic is not None or not _OWN_HEADERS.isdisjoint(map(str.lower, request.headers)):
        given = {name.lower(): value for name, value in headers}
        host = given.get("host", host)
        others = [(name, value) for name, value in headers if name.lower() not in _OWN_HEADERS]
        if target.basic is not None and "authorization" not in given:
            others.append(("Authorization", target.basic))
        headers = others
    block = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if not block.count("\n") == block.count("\r") == len(headers) or "\0" in block or "\n" in host:
        raise GatewayError(
            ErrorKind.ERROR_KIND_INVALID_REQUEST,
            "A header for the provider holds a line break or a null character. Send it without.",
            provider=request.provider,
            model=request.model,
        )
    framing = f"Content-Length: {len(request.body)}" if isinstance(request.body, bytes) else "Transfer-Encoding: chunked"
    head = f"{request.method} {target.path} HTTP/1.1\r\nHost: {host}\r\n{block}Accept-Encoding: identity\r\n{framing}\r\n\r\n"
    # What came in as bytes that are no UTF-8 goes out as the same bytes.
    return head.encode("utf-8", "surrogateescape")


def _write(connection: Connection, head: bytes, request: OutboundRequest) -> None:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None:
        raise ServerDisconnectedError
    protocol.set_response_params(
        skip_payload=request.method == "HEAD", read_until_eof=True, auto_decompress=False, read_bufsize=_READ_BUFFER_BYTES
    )
    # There is nothing to wait for: the body is in memory whether the transport has it or this frame.
    if not isinstance(request.body, bytes):
        transport.write(head)
    elif len(request.body) <= _JOIN_BYTES:
        transport.write(head + request.body)
    else:
        transport.writelines((head, request.body))


async def _begin_while_sending(
    connection: Connection, body: AsyncIterator[bytes], response: UpstreamResponse, loop: asyncio.AbstractEventLoop
) -> None:
    """Sends a body as it comes, and waits for the answer's headers meanwhile, since a host may refuse a body that it has not read.

    Raises:
        Exception: Whatever the body or the answer raises.
    """
    protocol = connection.protocol
    if protocol is None:
        raise ServerDisconnectedError
    writer = StreamWriter(protocol, loop)
    writer.enable_chunking()

    async def send() -> None:
        async for piece in body:
            await writer.write(piece)
        await writer.write_eof()

    sending, beginning = loop.create_task(send()), loop.create_task(response.begin())
    try:
        await asyncio.wait((sending, beginning), return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not isinstance(sending.exception(), OSError):  # of a lost connection, the answer knows more
            sending.result()
        await beginning
    finally:
        if not sending.done():
            protocol.force_close()  # the host answered without the rest, which would go ahead of the next request
        for task in (sending, beginning):
            task.cancel()
        await asyncio.gather(sending, beginning, return_exceptions=True)


def _is_silent(error: Exception) -> bool:
    """Whether the connection ended before a single byte of an answer."""
    if isinstance(error, ServerDisconnectedError):
        # aiohttp puts what had been read of an answer in place of the text.
        return isinstance(error.message, str)
    return isinstance(error, ClientOSError)
