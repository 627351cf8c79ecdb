"""Routes that take a form with files and give back what the provider says: transcriptions, and images that are edited.

The form goes to the core piece by piece, and the answer comes back so; neither is ever in memory whole.
"""

from typing import Any

import grpc
from aiohttp import web
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from twinspan.v1 import forms_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from bridge import errors
from bridge.call import Call
from bridge.multipart import Form
from bridge.rpc import Rpc


class FormRoute:
    """A route of one method that takes a stream and gives one.

    Attributes:
        rpcs: The method.
    """

    def __init__(self, method: MethodDescriptor, stub: object) -> None:
        """Makes a route of a stub's method."""
        self.rpcs = (method,)
        self._rpc = Rpc.of(stub, method)
        self._request: Any = GetMessageClass(method.input_type)

    async def handle(self, call: Call) -> web.StreamResponse:
        """Sends the form on, then the answer back."""
        form = Form(call.http.headers.get("Content-Type", ""), call.http.content)
        await call.invite_body()
        exchange = call.exchange(self._rpc)
        async for part in form.parts():
            if part.filename is None:
                field = forms_pb2.FormField(name=part.name, value=await part.text())
                await exchange.write(self._request(piece=forms_pb2.FormPiece(field=field)))
                continue
            file = forms_pb2.FormFile(name=part.name, filename=part.filename, content_type=part.content_type)
            await exchange.write(self._request(piece=forms_pb2.FormPiece(file=file)))
            async for piece in part:
                await exchange.write(self._request(piece=forms_pb2.FormPiece(content=piece)))
        messages = await exchange.end()
        message: Any = await messages.read()
        await call.note_metadata(messages)
        return await _send(call, messages, message)


async def _send(call: Call, messages: Any, message: Any) -> web.StreamResponse:
    kind = message.piece.content_type
    response = web.StreamResponse(headers=call.answer_headers(kind))
    call.answering = True
    await response.prepare(call.http)
    try:
        while message is not grpc.aio.EOF:
            await response.write(message.piece.content)
            message = await messages.read()
    except grpc.aio.AioRpcError as error:
        failure = errors.of_rpc(error)
        if not kind.startswith("text/event-stream") or failure.kind == ErrorKind.ERROR_KIND_CANCELLED:
            raise
        call.failed(failure)
        await response.write(b"\n\nevent: error\ndata: " + failure.openai_body() + b"\n\n")
    await response.write_eof()
    return response
