"""AudioService: texts spoken."""

from twinspan.v1 import audio_pb2

from gateway.exchange import Exchange
from gateway.operations import speech
from gateway.rpc.call import RpcCall


class AudioService:
    """Serves `twinspan.v1.AudioService`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def Speak(self, request: audio_pb2.SpeakRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Speaks a text."""
        await speech.speak(self._exchange, request, call)
