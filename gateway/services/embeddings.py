"""EmbeddingsService: texts as vectors."""

from twinspan.v1 import embeddings_pb2

from gateway.exchange import Exchange
from gateway.operations import embeddings
from gateway.rpc.call import RpcCall


class EmbeddingsService:
    """Serves `twinspan.v1.EmbeddingsService`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def Embed(  # noqa: N802 (the RPC's name)
        self, request: embeddings_pb2.EmbedRequest, call: RpcCall
    ) -> embeddings_pb2.EmbedResponse:
        """Embeds inputs."""
        return await embeddings.embed(self._exchange, request, call)
