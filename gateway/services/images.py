"""ImagesService: images made of descriptions."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final

import msgspec
from twinspan.v1 import images_pb2

from gateway.exchange import Exchange
from gateway.operations import json_operation, json_stream
from gateway.operations.forms import FormKind
from gateway.operations.json_operation import Kind
from gateway.rpc.call import RpcCall
from gateway.services import forms


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

_EDIT: Final = FormKind("edit_image", "images", "/images/edits", "image")
_VARY: Final = FormKind("vary_image", "images", "/images/variations", "image")


class ImagesService:
    """Serves `twinspan.v1.ImagesService`."""

    def __init__(self, exchange: Exchange, most_bytes: Callable[[], int]) -> None:
        """Makes the service; a form's files may have so many bytes."""
        self._exchange = exchange
        self._most_bytes = most_bytes

    async def Generate(self, request: images_pb2.GenerateRequest, call: RpcCall) -> images_pb2.GenerateResponse:  # noqa: N802 (the RPC's name)
        """Makes images of a description."""
        response: Any = images_pb2.GenerateResponse()
        return await json_operation.ask(self._exchange, _GENERATIONS, request, response, call)

    async def GenerateStream(self, request: images_pb2.GenerateStreamRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Makes images of a description, and shows them while it does."""
        response = images_pb2.GenerateStreamResponse
        await json_stream.stream(self._exchange, _GENERATIONS, request.image, response, call)

    async def Edit(self, requests: AsyncIterator[images_pb2.EditRequest], call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Changes images."""
        await forms.answer(self._exchange, _EDIT, requests, images_pb2.EditResponse, call, self._most_bytes())

    async def Vary(self, requests: AsyncIterator[images_pb2.VaryRequest], call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Makes others like an image."""
        await forms.answer(self._exchange, _VARY, requests, images_pb2.VaryResponse, call, self._most_bytes())
