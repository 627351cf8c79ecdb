"""Routes that answer one JSON object with another, or with a stream of events if it says `stream`: completions, images.

The client's JSON is carried to the core as it is, and so is what comes back. Nothing here knows what it means.
"""

from typing import Any

import grpc
import msgspec
from aiohttp import web
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from twinspan.v1.errors_pb2 import ErrorKind

from bridge import errors
from bridge.call import Call
from bridge.rpc import Rpc
from bridge.sse import EventStream

_DONE = b"data: [DONE]\n\n"


class _Delivery(msgspec.Struct):
    stream: bool | None = None


class JsonStreamRoute:
    """A route of a unary method and its streaming twin.

    Attributes:
        rpcs: The methods that it calls.
    """

    def __init__(
        self, service: ServiceDescriptor, stub: object, whole: str, streamed: str, keepalive_seconds: float, *, has_done: bool
    ) -> None:
        """Makes a route.

        Args:
            service: The service.
            stub: Calls it.
            whole: The unary method's name.
            streamed: The streaming method's name; its request holds the unary one's in its only field.
            keepalive_seconds: After how much silence a stream gets a comment.
            has_done: Whether a stream ends with `[DONE]`.
        """
        unary, stream = service.methods_by_name[whole], service.methods_by_name[streamed]
        self.rpcs = (unary, stream)
        self._unary = Rpc.of(stub, unary)
        self._stream = Rpc.of(stub, stream)
        self._request: Any = GetMessageClass(unary.input_type)
        self._stream_request: Any = GetMessageClass(stream.input_type)
        self._field = stream.input_type.fields[0].name
        self._keepalive_seconds = keepalive_seconds
        self._end = _DONE if has_done else b""

    async def handle(self, call: Call) -> web.StreamResponse:
        """Answers whole or as a stream, as the body says."""
        body = await call.body()
        request = self._request(openai_json=body, accept_openai_json=True)
        if not _wants_stream(body):
            return call.json((await call.unary(self._unary, request)).openai_json)
        messages = call.stream(self._stream, self._stream_request(**{self._field: request}))
        return await deliver(call, messages, self._keepalive_seconds, self._end)


async def deliver(
    call: Call, messages: "grpc.aio.UnaryStreamCall[Any, Any]", keepalive_seconds: float, end: bytes = b""
) -> web.StreamResponse:
    """Answers with the events of a streaming RPC, as they come.

    Args:
        call: The request.
        messages: The RPC; each of its messages has `events`.
        keepalive_seconds: After how much silence the stream gets a comment.
        end: What is written after the last event. A stream without one tells an error by an event of that name.
    """
    message: Any = await messages.read()
    await call.note_metadata(messages)
    async with EventStream(call, keepalive_seconds) as events:
        try:
            while message is not grpc.aio.EOF:
                await events.write(b"".join(map(_event, message.events)))
                message = await messages.read()
        except grpc.aio.AioRpcError as error:
            failure = errors.of_rpc(error)
            call.failed(failure)
            if failure.kind != ErrorKind.ERROR_KIND_CANCELLED:
                await events.write(b"event: error\n" * (not end) + b"data: " + failure.openai_body() + b"\n\n")
        return await events.end(end)


def _wants_stream(body: bytes) -> bool:
    try:
        return msgspec.json.decode(body, type=_Delivery).stream is True
    except (ValueError, RecursionError):
        return False  # what is wrong with it, the core says


def _event(event: Any) -> bytes:
    """Returns an event as the client reads it; one that the provider spread over lines stays one."""
    lines = "".join(f"data: {line}\n" for line in event.json.split("\n"))
    name = f"event: {event.type}\n" if event.type and "\n" not in event.type and "\r" not in event.type else ""
    return f"{name}{lines}\n".encode()
