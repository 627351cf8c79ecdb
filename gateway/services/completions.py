"""CompletionsService: texts completed, whole or streamed."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Raw
from twinspan.v1 import completions_pb2

from gateway.exchange import Exchange
from gateway.operations import json_operation, json_stream
from gateway.operations.json_operation import Kind
from gateway.rpc.call import RpcCall


class _Completion(msgspec.Struct):
    model: str
    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    max_tokens: int | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    echo: bool | None = None
    logprobs: int | None = None
    temperature: float | None = None
    stream: bool | None = None
    stream_options: dict[str, Raw] | None = None


_KIND: Final = Kind("text_completion", "completions", "/completions", _Completion, asks_for_usage=True)


class CompletionsService:
    """Serves `twinspan.v1.CompletionsService`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def Complete(  # noqa: N802 (the RPC's name)
        self, request: completions_pb2.CompletionsServiceCompleteRequest, call: RpcCall
    ) -> completions_pb2.CompletionsServiceCompleteResponse:
        """Answers in one message."""
        response: Any = completions_pb2.CompletionsServiceCompleteResponse()
        return await json_operation.ask(self._exchange, _KIND, request, response, call)

    async def Stream(self, request: completions_pb2.CompletionsServiceStreamRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Answers as the model writes."""
        response = completions_pb2.CompletionsServiceStreamResponse
        await json_stream.stream(self._exchange, _KIND, request.completion, response, call)
