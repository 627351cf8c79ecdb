"""The route of batches that takes a body. The plain ones come from the annotations."""

from collections.abc import Mapping

import grpc
from aiohttp import web
from twinspan.v1 import batches_pb2
from twinspan.v1.batches_pb2_grpc import BatchesServiceStub

from bridge.call import Call
from bridge.dialects import batches
from bridge.rpc import Rpc
from bridge.transcoding import Renderer

RENDERERS: Mapping[str, Renderer] = {
    "Batch": lambda _call, batch: batches.batch_object(batch),
    "BatchesServiceListResponse": lambda _call, response: batches.batch_list(response),
    "BatchesServiceCancelResponse": lambda _call, response: batches.batch_object(response.batch),
}
"""Writers of responses, by message name."""


class BatchesRoutes:
    """Making batches.

    Attributes:
        rpc: What the route calls.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Makes the route over a channel to the core."""
        self.rpc = batches_pb2.DESCRIPTOR.services_by_name["BatchesService"].methods_by_name["Create"]
        self._create = Rpc.of(BatchesServiceStub(channel), self.rpc)

    async def create(self, call: Call) -> web.StreamResponse:
        """Makes a batch."""
        answer = await call.unary(self._create, batches.read_order(await call.body()))
        return call.json(batches.batch_object(answer.batch))
