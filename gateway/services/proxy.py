"""ProxyService: requests that go to a provider as they are."""

from collections.abc import AsyncIterator

from twinspan.v1 import proxy_pb2

from gateway.forwarding.forwarder import Forwarder
from gateway.rpc.call import RpcCall


class ProxyService:
    """Serves `twinspan.v1.ProxyService`."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    async def Forward(self, request: AsyncIterator[proxy_pb2.ForwardRequest], call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Forwards one request, or one WebSocket."""
        await self._forwarder.forward(request, call)
