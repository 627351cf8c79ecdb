"""Sends requests whose bodies are streamed, and whose answers are wanted as they are on the wire.

It has a pool of connections of its own, so that nothing of this costs the chat road anything. Above is `gateway.forwarding`; below
is `gateway.providers.sender`, from which it takes connecting, closing and watching.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import ServerDisconnectedError
from twinspan.v1.errors_pb2 import ErrorKind
from yarl import URL

from gateway.errors import GatewayError
from gateway.providers.raw_exchange import RawExchange, RawProtocol
from gateway.providers.send_error import Phase, Upstream, broken
from gateway.providers.sender import Sender
from gateway.providers.timeouts import Timeouts

_READ_BUFFER_BYTES: Final = 256 * 1024
"""Reading from a socket stops while twice this much waits for a slow reader."""

_WRITE_BUFFER_BYTES: Final = 512 * 1024
"""How much may wait to be taken by a provider before its writer has to."""

_HEAD_BYTES: Final = 64 * 1024
_ALWAYS_FRAMED: Final = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request to a provider, without its body.

    Attributes:
        origin: The provider's scheme, host and port.
        target: Path and query, as they are written.
        method: The HTTP method.
        headers: What is sent, besides framing and `Host`, as it is. Names and values must have been checked.
        content_length: The body's length; None if it is not known.
        timeouts: The limits of its phases. `first_token` counts from the end of the request.
        provider: The provider's name, for errors.
        model: The model's name, for errors.
    """

    origin: URL
    target: str
    method: str
    headers: Sequence[tuple[str, bytes]]
    content_length: int | None
    timeouts: Timeouts
    provider: str
    model: str


class RawSender(Sender):
    """Sends such requests. One per event loop; start it inside the loop, and close it."""

    protocol = RawProtocol

    async def open(self, request: RawRequest, *, fresh: bool = False) -> RawExchange:
        """Sends the head of `request` and returns the exchange, to which the body is written and from which the answer is read.

        Args:
            request: What is sent.
            fresh: Whether to take a new connection, because a pooled one turned out to be closed.

        Raises:
            SendError: NETWORK_ERROR or PROVIDER_TIMEOUT if there is no connection.
            GatewayError: NOT_CONFIGURED if the provider's URL is not one that can be sent to.
        """
        loop, watch, connector = self._loop, self._watch, self._connector
        if loop is None or watch is None or connector is None:
            raise RuntimeError("the sender is not started")
        try:
            target = self._target(request.origin)
        except ValueError as error:
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_CONFIGURED,
                f"The url of the provider '{request.provider}' cannot be sent to. Give it as http://host/path or https://host/path.",
                provider=request.provider,
                model=request.model,
            ) from error
        upstream = Upstream(request.provider, request.model, target.authority)
        head = _head(request, target.host, target.basic)
        connection, pooled = await self._connect(connector, target, upstream, request.timeouts, fresh=fresh)
        exchange = RawExchange(
            loop,
            watch,
            connection,
            upstream,
            request.timeouts,
            loop.time(),
            pooled=pooled,
            content_length=request.content_length,
        )
        protocol, transport = exchange.protocol, exchange.transport
        if protocol is None or transport is None:
            raise exchange.fail(broken(upstream, Phase.FIRST_TOKEN, ServerDisconnectedError()))
        protocol.tail = b""
        protocol.set_response_params(
            skip_payload=request.method.upper() == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_HEAD_BYTES,
            max_field_size=_HEAD_BYTES,
        )
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        transport.write(head)
        return exchange


def _head(request: RawRequest, host: str, basic: str | None) -> bytes:
    lines = [f"{request.method} {request.target} HTTP/1.1\r\nHost: {host}\r\n".encode()]
    lines += [b"%s: %s\r\n" % (name.encode(), value) for name, value in request.headers]
    if basic is not None and not any(name.lower() == "authorization" for name, _ in request.headers):
        lines.append(f"Authorization: {basic}\r\n".encode())
    if request.content_length is None:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif request.content_length or request.method.upper() in _ALWAYS_FRAMED:
        lines.append(b"Content-Length: %d\r\n" % request.content_length)
    lines.append(b"\r\n")
    return b"".join(lines)
