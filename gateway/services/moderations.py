"""ModerationsService: whether content is harmful."""

from typing import Any

import msgspec
from msgspec import Raw
from twinspan.v1 import moderations_pb2

from gateway.exchange import Exchange
from gateway.operations import json_operation
from gateway.operations.json_operation import Kind
from gateway.rpc.call import RpcCall


class _Moderation(msgspec.Struct):
    input: str | list[str | dict[str, Raw]]
    model: str | None = None


_KIND = Kind("moderation", "moderations", "/moderations", _Moderation, needs_model=False)


class ModerationsService:
    """Serves `twinspan.v1.ModerationsService`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def Moderate(  # noqa: N802 (the RPC's name)
        self, request: moderations_pb2.ModerateRequest, call: RpcCall
    ) -> moderations_pb2.ModerateResponse:
        """Judges inputs."""
        response: Any = moderations_pb2.ModerateResponse()
        return await json_operation.ask(self._exchange, _KIND, request, response, call)
