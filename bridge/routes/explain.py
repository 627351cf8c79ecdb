"""POST /v1/explain: AdminService.Explain, asked with the body of a chat."""

import grpc
import orjson
from aiohttp import web
from twinspan.v1 import admin_pb2, explain_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from bridge import transcoding
from bridge.call import Call
from bridge.dialects.openai_chat.request import ChatBody
from bridge.rpc import Rpc


class ExplainRoute:
    """Tells what would come of a chat."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Makes the route; `channel` leads to the core."""
        self.method = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name["Explain"]
        self._rpc = Rpc.of(AdminServiceStub(channel), self.method)

    async def handle(self, call: Call) -> web.Response:
        """Explains the chat in the body."""
        request = explain_pb2.ExplainRequest()
        ChatBody(await call.body()).fill(request.chat)
        return call.json(orjson.dumps(transcoding.as_json(await call.unary(self._rpc, request))))
