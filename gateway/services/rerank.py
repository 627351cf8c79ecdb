"""RerankService: documents in order of how well they answer a query."""

from twinspan.v1 import rerank_pb2

from gateway.exchange import Exchange
from gateway.operations import rerank
from gateway.rpc.call import RpcCall


class RerankService:
    """Serves `twinspan.v1.RerankService`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def Rerank(self, request: rerank_pb2.RerankRequest, call: RpcCall) -> rerank_pb2.RerankResponse:  # noqa: N802 (the RPC's name)
        """Scores documents."""
        return await rerank.rerank(self._exchange, request, call)
