"""ImagesService: images made of descriptions."""

from typing import Annotated, Any, Final

import msgspec
from twinspan.v1 import images_pb2

from gateway.exchange import Exchange
from gateway.operations import json_operation, json_stream
from gateway.operations.json_operation import Kind
from gateway.rpc.call import RpcCall


class _Generation(msgspec.Struct):
    prompt: str
    model: str | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    size: str | None = None
    quality: str | None = None
    response_format: str | None = None
    partial_images: int | None = None
    stream: bool | None = None


_GENERATIONS: Final = Kind("generate_image", "images", "/images/generations", _Generation, creates=True, needs_model=False)


class ImagesService:
    """Serves `twinspan.v1.ImagesService`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def Generate(self, request: images_pb2.GenerateRequest, call: RpcCall) -> images_pb2.GenerateResponse:  # noqa: N802 (the RPC's name)
        """Makes images of a description."""
        response: Any = images_pb2.GenerateResponse()
        return await json_operation.ask(self._exchange, _GENERATIONS, request, response, call)

    async def GenerateStream(self, request: images_pb2.GenerateStreamRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Makes images of a description, and shows them while it does."""
        response = images_pb2.GenerateStreamResponse
        await json_stream.stream(self._exchange, _GENERATIONS, request.image, response, call)
