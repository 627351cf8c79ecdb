"""ANY /proxy/{provider}/{path} and GET /v1/realtime: ProxyService.Forward.

Bodies are passed on piece by piece, both ways at once; a WebSocket goes on in `bridge.routes.sockets`. What may be forwarded is the
core's to decide: here a request is only taken from the wire.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, cast
from urllib.parse import unquote, unquote_plus

import grpc
from aiohttp import ClientPayloadError, web
from twinspan.v1 import proxy_pb2
from twinspan.v1.errors_pb2 import ErrorKind
from twinspan.v1.proxy_pb2_grpc import ProxyServiceStub

from bridge.call import Call
from bridge.errors import BridgeError
from bridge.forwarded import ForwardedResponse, inform
from bridge.routes import sockets
from bridge.rpc import Rpc
from bridge.trailers import TAIL_BYTES, KeepsTail, trailers_in

_PREFIX: Final = "/proxy/"
_CONTINUE: Final = 100
_SWITCHING: Final = 101


class ProxyRoutes:
    """What is forwarded to a provider."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Makes the routes over a channel to the core."""
        stub = ProxyServiceStub(channel)
        self._forward = Rpc.of(stub, proxy_pb2.DESCRIPTOR.services_by_name["ProxyService"].methods_by_name["Forward"])

    async def any(self, call: Call) -> web.StreamResponse:
        """Forwards a request to the provider that the path names."""
        path, query = _target(call.http)
        if not path.startswith(_PREFIX):
            raise _refused("The request's target must be a path, as in /proxy/PROVIDER/PATH.")
        provider, _, rest = path.removeprefix(_PREFIX).partition("/")
        head = proxy_pb2.ForwardRequestHead(provider=unquote(provider), path=f"/{rest}", query=query)
        return await self._run(call, head)

    async def realtime(self, call: Call) -> web.StreamResponse:
        """Opens a realtime session with the model that the query names."""
        if not sockets.wanted(call.http):
            raise _refused("/v1/realtime is a WebSocket. Connect to it by wss:// or ws://.")
        _, query = _target(call.http)
        models = [unquote_plus(value) for name, value in _parameters(query) if name == "model"]
        if len(models) != 1 or not models[0]:
            raise BridgeError(ErrorKind.ERROR_KIND_INVALID_REQUEST, "Name one model, as in /v1/realtime?model=NAME.", param="model")
        return await self._run(call, proxy_pb2.ForwardRequestHead(model=models[0], path="/realtime", query=query))

    async def _run(self, call: Call, head: proxy_pb2.ForwardRequestHead) -> web.StreamResponse:
        http = call.http
        head.method = http.method
        head.websocket = sockets.wanted(http)
        if head.websocket:
            head.query = _take_credential(call, head.query)
        head.headers.extend(
            proxy_pb2.ForwardHeader(name=name.decode("latin-1"), value=value)
            for name, value in http._message.raw_headers  # noqa: SLF001 - what it shows publicly is decoded
        )
        if not http.body_exists or head.websocket:
            head.content_length = 0
        elif http.content_length is not None:
            head.content_length = http.content_length
        head.expect_continue = http.body_exists and http.headers.get("Expect", "").lower() == "100-continue"
        stream = call.converse(self._forward)
        await _sending(stream.write(proxy_pb2.ForwardRequest(head=head)))
        if head.websocket:
            return await self._answer_socket(call, stream)
        wanted = asyncio.Event()
        if not head.expect_continue:
            wanted.set()
        upload = asyncio.create_task(_upload(call, stream, wanted))
        try:
            return await self._answer(call, stream, wanted)
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            if upload.done() and not upload.cancelled() and (fault := upload.exception()) is not None:
                raise fault from None
            raise
        finally:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)

    async def _answer(self, call: Call, stream: Any, wanted: asyncio.Event) -> web.StreamResponse:
        http = call.http
        head = (await _first(stream)).head
        while head.status < 200:
            await inform(http, head)
            if head.status == _CONTINUE:
                wanted.set()
            head = (await _first(stream)).head
        await call.note_metadata(stream)
        # A client that was not told to send its body may send it all the same, or not: nobody can tell what comes next.
        response = ForwardedResponse(http, head, keep_alive=wanted.is_set())
        call.answering = True
        await response.begin(call.headers)
        message = await stream.read()
        while message is not grpc.aio.EOF:
            if message.WhichOneof("part") == "body":
                await response.write(message.body)
            else:
                await response.end(message.trailers.headers)
            message = await stream.read()
        await response.end()
        if not wanted.is_set():
            http.protocol.force_close()  # else aiohttp would wait for the body
        return response

    async def _answer_socket(self, call: Call, stream: Any) -> web.StreamResponse:
        first = await _first(stream)
        await call.note_metadata(stream)
        if first.head.status == _SWITCHING:
            return await sockets.relay(call, stream, first.head)
        await stream.done_writing()
        response = ForwardedResponse(call.http, first.head, keep_alive=False)
        call.answering = True
        await response.begin(call.headers)
        message = await stream.read()
        while message is not grpc.aio.EOF:
            await response.write(message.body)
            message = await stream.read()
        await response.end()
        return response


async def _first(stream: Any) -> proxy_pb2.ForwardResponse:
    message: Any = await stream.read()
    if message is grpc.aio.EOF or message.WhichOneof("part") != "head":
        raise BridgeError(ErrorKind.ERROR_KIND_INTERNAL_ERROR, "The gateway's core gave no answer.")
    return cast("proxy_pb2.ForwardResponse", message)


async def _upload(call: Call, stream: Any, wanted: asyncio.Event) -> None:
    """Passes the request's body on. If the client breaks it off, so is the RPC."""
    content = call.http.content
    await wanted.wait()
    connection = cast("KeepsTail", call.http.protocol)
    connection.tail_bytes = TAIL_BYTES
    chunked = call.http.body_exists and call.http.content_length is None
    try:
        while piece := await content.readany():
            if not await _sending(stream.write(proxy_pb2.ForwardRequest(body=piece))):
                return
        if chunked and (trailers := trailers_in(connection.tail)):
            headers = [proxy_pb2.ForwardHeader(name=name, value=value) for name, value in trailers]
            await _sending(stream.write(proxy_pb2.ForwardRequest(trailers=proxy_pb2.ForwardTrailers(headers=headers))))
        await _sending(stream.done_writing())
    except (ClientPayloadError, web.RequestPayloadError) as error:
        stream.cancel()
        raise BridgeError(ErrorKind.ERROR_KIND_INVALID_REQUEST, "The body ended before it was whole.") from error
    finally:
        connection.tail_bytes = 0


async def _sending(sent: Awaitable[None]) -> bool:
    """Waits for a write, and returns whether the core still reads. If not, what it answers says why."""
    try:
        await sent
    except (asyncio.InvalidStateError, grpc.aio.AioRpcError, grpc.aio.InternalError):
        return False
    return True


def _target(http: web.BaseRequest) -> tuple[str, str]:
    path, _, query = http.raw_path.partition("?")
    return path, query


def _parameters(query: str) -> list[tuple[str, str]]:
    return [(unquote_plus(name), value) for name, _, value in (part.partition("=") for part in query.split("&")) if name]


def _take_credential(call: Call, query: str) -> str:
    """Finds the credential of a client that cannot set headers, and returns the query without it."""
    token = sockets.key_protocol(call.http)
    for name, value in _parameters(query):
        if name == "api-key":
            token = token or unquote_plus(value)
    call.token = token
    return "&".join(part for part in query.split("&") if unquote_plus(part.partition("=")[0]) != "api-key")


def _refused(message: str) -> BridgeError:
    return BridgeError(ErrorKind.ERROR_KIND_INVALID_REQUEST, message)
