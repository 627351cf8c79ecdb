"""A WebSocket to a provider: its handshake, and its frames both ways.

Text, bytes, pings, pongs and the close are passed on as they come; neither side is answered in the other's name. Fragments are put
together. Above is `gateway.forwarding.forwarder`; below is `gateway.providers.websocket`.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import Message
from twinspan.v1 import proxy_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.forwarding import order as rules
from gateway.providers.raw_exchange import Head, RawExchange
from gateway.providers.raw_sender import RawRequest
from gateway.providers.websocket import Frame, FrameKind, UpstreamSocket, accepts

_CONTROL_BYTES = 125
_GOING_AWAY = 1001


def handshake() -> rules.Headers:
    """Returns the headers that ask for a WebSocket."""
    key = base64.b64encode(os.urandom(16))
    return [
        ("Connection", b"Upgrade"),
        ("Upgrade", b"websocket"),
        ("Sec-WebSocket-Version", b"13"),
        ("Sec-WebSocket-Key", key),
    ]


class SocketRelay:
    """Passes frames on, both ways, until either side closes."""

    def __init__(self, exchange: RawExchange, head: Head, request: RawRequest, count: Callable[[str, int], None]) -> None:
        """Takes over the connection of an answer with status 101.

        Args:
            exchange: The connection.
            head: The answer's head.
            request: What was asked.
            count: Takes the direction, `sent` or `received`, and the length of every frame.

        Raises:
            GatewayError: The provider did not agree on what it was asked for.
        """
        key = next(value for name, value in request.headers if name == "Sec-WebSocket-Key")
        if not accepts(head.fields, key):
            raise GatewayError(
                ErrorKind.ERROR_KIND_PROVIDER_ERROR,
                f"The provider '{request.provider}' did not answer the handshake of a WebSocket as RFC 6455 says.",
                provider=request.provider,
            )
        self._socket = UpstreamSocket(exchange)
        self._count = count

    async def run(self, messages: AsyncIterator[proxy_pb2.ForwardRequest], write: Callable[[Message], Awaitable[None]]) -> None:
        """Passes frames on until both sides have closed, or the provider is gone.

        Raises:
            GatewayError: The caller sent what is no frame.
        """
        upload = asyncio.create_task(self._upload(messages))
        upload.add_done_callback(lambda done: None if done.cancelled() or done.exception() is None else self._socket.abort())
        try:
            while (frame := await self._socket.next_frame()) is not None:
                self._count("received", len(frame.data))
                await write(proxy_pb2.ForwardResponse(frame=_to_message(frame)))
                if frame.kind is FrameKind.CLOSE:
                    break
            if upload.done() and not upload.cancelled() and (fault := upload.exception()) is not None:
                raise fault
        finally:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
            await self._socket.close()

    async def _upload(self, messages: AsyncIterator[proxy_pb2.ForwardRequest]) -> None:
        async for message in messages:
            if message.WhichOneof("part") != "frame":
                raise rules.refused("A WebSocket has frames, and nothing else.", "part")
            frame = _of_message(message.frame)
            self._count("sent", len(frame.data))
            await self._socket.send(frame)
            if frame.kind is FrameKind.CLOSE:
                return
        await self._socket.send(Frame(FrameKind.CLOSE, b"", _GOING_AWAY))


def _to_message(frame: Frame) -> proxy_pb2.ForwardFrame:
    match frame.kind:
        case FrameKind.TEXT:
            return proxy_pb2.ForwardFrame(text=frame.data.decode())
        case FrameKind.BINARY:
            return proxy_pb2.ForwardFrame(binary=frame.data)
        case FrameKind.PING:
            return proxy_pb2.ForwardFrame(ping=frame.data)
        case FrameKind.PONG:
            return proxy_pb2.ForwardFrame(pong=frame.data)
    return proxy_pb2.ForwardFrame(close=proxy_pb2.ForwardClose(code=frame.code, reason=frame.data.decode("utf-8", "replace")))


def _of_message(frame: proxy_pb2.ForwardFrame) -> Frame:
    match frame.WhichOneof("kind"):
        case "text":
            return Frame(FrameKind.TEXT, frame.text.encode())
        case "binary":
            return Frame(FrameKind.BINARY, frame.binary)
        case "ping" if len(frame.ping) <= _CONTROL_BYTES:
            return Frame(FrameKind.PING, frame.ping)
        case "pong" if len(frame.pong) <= _CONTROL_BYTES:
            return Frame(FrameKind.PONG, frame.pong)
        case "close":
            code, reason = frame.close.code, frame.close.reason.encode()
            if (code == 0 and not reason) or (_may_be_sent(code) and len(reason) <= _CONTROL_BYTES - 2):
                return Frame(FrameKind.CLOSE, reason, code)
    raise rules.refused("This is no frame that RFC 6455 allows.", "frame")


def _may_be_sent(code: int) -> bool:
    """Tells whether a close may carry a code (RFC 6455, 7.4)."""
    return 1000 <= code < 5000 and code not in {1004, 1005, 1006, 1015}
