"""The frames of a WebSocket to a provider, over a connection that has been upgraded.

Below is aiohttp's reader and writer of frames; above is `gateway.forwarding.socket`, which knows what they are for.
"""

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from aiohttp import EofStream, WebSocketError, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http_websocket import WebSocketReader, WebSocketWriter

from gateway.providers.raw_exchange import RawExchange
from gateway.providers.upstream import TRANSPORT_ERRORS

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""The largest message that is taken from a provider."""

_BUFFER_BYTES: Final = 128 * 1024
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class FrameKind(Enum):
    """What a frame is."""

    TEXT = auto()
    BINARY = auto()
    PING = auto()
    PONG = auto()
    CLOSE = auto()


@dataclass(frozen=True, slots=True)
class Frame:
    """A message of a WebSocket.

    Attributes:
        kind: What it is.
        data: What it carries: UTF-8 for text, the reason for a close.
        code: The code of a close; 0 if it has none.
    """

    kind: FrameKind
    data: bytes
    code: int = 0


_OPCODES: Final = {
    FrameKind.TEXT: WSMsgType.TEXT,
    FrameKind.BINARY: WSMsgType.BINARY,
    FrameKind.PING: WSMsgType.PING,
    FrameKind.PONG: WSMsgType.PONG,
}
_KINDS: Final = {opcode: kind for kind, opcode in _OPCODES.items()}


def accepts(headers: Mapping[str, str], key: bytes) -> bool:
    """Tells whether an answer with status 101 agrees to the handshake that was sent with `key`."""
    digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
    connection = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
    return (
        headers.get("Sec-WebSocket-Accept") == digest
        and headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in connection
        and "Sec-WebSocket-Extensions" not in headers
    )


class UpstreamSocket:
    """A WebSocket. One task may send while another reads."""

    def __init__(self, exchange: RawExchange) -> None:
        """Takes over the connection of an exchange, which stays its owner."""
        protocol, transport = exchange.protocol, exchange.transport
        if protocol is None or transport is None:
            raise ConnectionResetError
        self._exchange = exchange
        exchange.upgraded()
        self._frames = WebSocketDataQueue(protocol, _BUFFER_BYTES, loop=asyncio.get_running_loop())
        protocol.set_parser(WebSocketReader(self._frames, MAX_MESSAGE_BYTES, compress=False, decode_text=True), self._frames)
        self._writer = WebSocketWriter(protocol, transport, use_mask=True)

    async def next_frame(self) -> Frame | None:
        """Waits for the next frame and returns it; None once the connection is gone. A violation of the protocol is a close."""
        try:
            message = await self._frames.read()
        except WebSocketError as error:
            return Frame(FrameKind.CLOSE, b"", int(error.code))
        except (EofStream, *TRANSPORT_ERRORS):
            return None
        data = message.data
        if message.type is WSMsgType.CLOSE:
            return Frame(FrameKind.CLOSE, (message.extra or "").encode(), int(data or 0))
        kind = _KINDS.get(message.type)
        if kind is None:
            return None
        return Frame(kind, data.encode() if isinstance(data, str) else bytes(data))

    async def send(self, frame: Frame) -> None:
        """Sends a frame; waits while the provider reads too slowly. If the connection is gone, nothing happens.

        Raises:
            SendError: PROVIDER_TIMEOUT if the provider takes nothing for the idle timeout.
        """
        try:
            if frame.kind is FrameKind.CLOSE:
                payload = frame.code.to_bytes(2, "big") + frame.data if frame.code else b""
                await self._writer.send_frame(payload, WSMsgType.CLOSE)
            else:
                await self._writer.send_frame(frame.data, _OPCODES[frame.kind])
        except TRANSPORT_ERRORS:
            return  # whoever reads learns of it
        await self._exchange.drain()

    async def close(self) -> None:
        """Closes the connection, after what has been sent."""
        transport = self._exchange.transport
        if transport is not None:
            transport.close()

    def abort(self) -> None:
        """Closes the connection at once; whoever reads gets no more frames."""
        self._exchange.abort()
        self._frames.feed_eof()
