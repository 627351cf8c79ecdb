"""POST /v1/chat/completions: ChatService.Complete and ChatService.Stream."""

from typing import Any

import grpc
from aiohttp import web
from twinspan.v1 import chat_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub
from twinspan.v1.errors_pb2 import ErrorKind

from bridge import errors
from bridge.call import Call
from bridge.dialects.openai_chat import response as chat_response
from bridge.dialects.openai_chat.request import ChatBody
from bridge.dialects.openai_chat.stream import DONE, StreamRenderer
from bridge.rpc import Rpc
from bridge.sse import EventStream


class ChatRoutes:
    """Chat in OpenAI's dialect."""

    def __init__(self, channel: grpc.aio.Channel, *, stream_default: bool, keepalive_seconds: float) -> None:
        """Makes the routes.

        Args:
            channel: Leads to the core.
            stream_default: Whether to stream where neither the body nor `Accept` says.
            keepalive_seconds: After how much silence a stream gets a comment.
        """
        stub = ChatServiceStub(channel)
        methods = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].methods_by_name
        self.rpcs = (methods["Complete"], methods["Stream"])
        """The methods that chats call."""
        self._complete_rpc = Rpc.of(stub, methods["Complete"])
        self._stream_rpc = Rpc.of(stub, methods["Stream"])
        self._stream_default = stream_default
        self._keepalive_seconds = keepalive_seconds

    async def completions(self, call: Call) -> web.StreamResponse:
        """Answers a chat, whole or as a stream."""
        body = ChatBody(await call.body())
        if self._wants_stream(body.stream, call.http.headers.get("Accept", "")):
            return await self._stream(call, body)
        return await self._complete(call, body)

    def _wants_stream(self, asked: bool | None, accept: str) -> bool:
        if asked is not None:
            return asked
        if "text/event-stream" in accept:
            return True
        if "application/json" in accept:
            return False
        return self._stream_default

    async def _complete(self, call: Call, body: ChatBody) -> web.Response:
        rpc = chat_pb2.CompleteRequest(accept_openai_json=True)
        body.fill(rpc.chat)
        answer = await call.unary(self._complete_rpc, rpc)
        return call.json(answer.openai_json or chat_response.render(answer))

    async def _stream(self, call: Call, body: ChatBody) -> web.StreamResponse:
        rpc = chat_pb2.StreamRequest()
        body.fill(rpc.chat)
        renderer = StreamRenderer(include_usage=body.include_usage)
        messages = call.stream(self._stream_rpc, rpc)
        message: Any = await messages.read()
        await call.note_metadata(messages)
        async with EventStream(call, self._keepalive_seconds) as events:
            try:
                while message is not grpc.aio.EOF:
                    if data := renderer.render(message):
                        await events.write(data)
                    message = await messages.read()
            except grpc.aio.AioRpcError as error:
                failure = errors.of_rpc(error)
                call.failed(failure)
                if failure.kind != ErrorKind.ERROR_KIND_CANCELLED:
                    await events.write(b"data: " + failure.openai_body() + b"\n\n")
            return await events.end(DONE)
