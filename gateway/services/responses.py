"""ResponsesService: answers in the form of OpenAI's Responses API, by any provider: see `gateway.responses`.

Nothing is remembered of an answer, so what would need that is refused.
"""

from typing import Final

import msgspec
from msgspec import Raw
from twinspan.v1 import responses_pb2

from gateway.exchange import Exchange
from gateway.operations import json_operation, json_stream
from gateway.operations.json_operation import Kind
from gateway.responses.operation import ItemIdentifiers, StreamedResponse, WholeResponse
from gateway.rpc.call import RpcCall


class _Request(msgspec.Struct):
    model: str
    input: str | list[dict[str, Raw]] | None = None
    instructions: str | list[dict[str, Raw]] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    stream: bool | None = None
    # Several providers may stand behind a name, and another key may have made what an id names: neither is known here.
    previous_response_id: None = None
    conversation: None = None


_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
_KIND: Final = Kind("generate_content", "responses", "/responses", _Request, ends=_ENDS)


class ResponsesService:
    """Serves `twinspan.v1.ResponsesService`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._identifiers = ItemIdentifiers()

    async def Create(  # noqa: N802 (the RPC's name)
        self, request: responses_pb2.ResponsesServiceCreateRequest, call: RpcCall
    ) -> responses_pb2.ResponsesServiceCreateResponse:
        """Answers in one message."""
        operation = WholeResponse(_KIND, request, self._identifiers.new)
        with await self._exchange.open(operation, call) as answer:
            return json_operation.put(answer, request, responses_pb2.ResponsesServiceCreateResponse())

    async def Stream(self, request: responses_pb2.ResponsesServiceStreamRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Answers as the model writes."""
        operation = StreamedResponse(_KIND, request.request, self._identifiers.new)
        with await self._exchange.open(operation, call) as answer:
            await json_stream.write(answer, responses_pb2.ResponsesServiceStreamResponse, call)
