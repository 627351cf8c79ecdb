"""WebSockets of clients, whose frames go to the core and come from it over ProxyService.Forward.

Nothing is answered here in the provider's name: pings and closes are passed on like all else.
"""

import asyncio
from typing import Any, Final

import grpc
from aiohttp import ClientConnectionResetError, WSMsgType, web
from twinspan.v1 import proxy_pb2

from bridge.call import Call

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""The largest message that is taken from a client."""

_KEY_PROTOCOL: Final = "openai-insecure-api-key."
_NORMAL: Final = 1000
_NO_STATUS: Final = 1005
_FAILED: Final = 1011


def wanted(http: web.BaseRequest) -> bool:
    """Tells whether a request asks for a WebSocket."""
    tokens = {token.strip().lower() for token in http.headers.get("Connection", "").split(",")}
    return http.method == "GET" and "upgrade" in tokens and http.headers.get("Upgrade", "").lower() == "websocket"


def key_protocol(http: web.BaseRequest) -> str | None:
    """Returns the credential that a browser gives as a subprotocol, since it cannot set a header; None if there is none."""
    for offered in http.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if offered.strip().startswith(_KEY_PROTOCOL):
            return offered.strip().removeprefix(_KEY_PROTOCOL)
    return None


async def relay(call: Call, stream: Any, head: proxy_pb2.ForwardResponseHead) -> web.StreamResponse:
    """Accepts the client's WebSocket as the provider has accepted it, and passes frames on until either is closed.

    Args:
        call: The request.
        stream: The call of ProxyService.Forward.
        head: The provider's answer to the handshake.
    """
    protocols = [header.value.decode("latin-1") for header in head.headers if header.name.lower() == "sec-websocket-protocol"]
    socket = web.WebSocketResponse(
        protocols=protocols, autoping=False, autoclose=False, compress=False, max_msg_size=MAX_MESSAGE_BYTES, timeout=2.0
    )
    for header in head.headers:
        if not header.name.lower().startswith("sec-websocket-"):
            socket.headers.add(header.name, header.value.decode("latin-1"))
    for name, value in call.headers.items():
        socket.headers[name] = value
    await socket.prepare(call.http)
    call.answering = True
    upload = asyncio.create_task(_upload(socket, stream))
    code, reason = _FAILED, b""
    try:
        message = await stream.read()
        while message is not grpc.aio.EOF:
            frame: proxy_pb2.ForwardFrame = message.frame
            if frame.HasField("close"):
                code, reason = _sendable(frame.close.code), frame.close.reason.encode()
                break
            await _pass_on(frame, socket)
            message = await stream.read()
    except (grpc.aio.AioRpcError, ClientConnectionResetError):
        pass  # the close says that it failed
    finally:
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
    await socket.close(code=code, message=reason)
    return socket


async def _pass_on(frame: proxy_pb2.ForwardFrame, socket: web.WebSocketResponse) -> None:
    match frame.WhichOneof("kind"):
        case "text":
            await socket.send_str(frame.text)
        case "binary":
            await socket.send_bytes(frame.binary)
        case "ping":
            await socket.ping(frame.ping)
        case "pong":
            await socket.pong(frame.pong)


async def _upload(socket: web.WebSocketResponse, stream: Any) -> None:
    try:
        while (frame := _frame(await socket.receive())) is not None:
            await stream.write(proxy_pb2.ForwardRequest(frame=frame))
            if frame.HasField("close"):
                break
        await stream.done_writing()
    except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
        return  # the core has ended the call; whoever reads learns how


def _frame(message: Any) -> proxy_pb2.ForwardFrame | None:
    """Returns a client's message as a frame; None once it is gone."""
    match message.type:
        case WSMsgType.TEXT:
            return proxy_pb2.ForwardFrame(text=message.data)
        case WSMsgType.BINARY:
            return proxy_pb2.ForwardFrame(binary=message.data)
        case WSMsgType.PING:
            return proxy_pb2.ForwardFrame(ping=bytes(message.data))
        case WSMsgType.PONG:
            return proxy_pb2.ForwardFrame(pong=bytes(message.data))
        case WSMsgType.CLOSE:
            code = int(message.data or 0)
            close = proxy_pb2.ForwardClose(code=code, reason=message.extra or "")
            return proxy_pb2.ForwardFrame(close=close)
    return None


def _sendable(code: int) -> int:
    """Returns the code with which a close is repeated to the client."""
    if code in {0, _NO_STATUS}:
        return _NORMAL
    return code if 1000 <= code < 5000 and code not in {1004, 1006, 1015} else _FAILED
