"""AudioService: texts spoken."""

from collections.abc import AsyncIterator, Callable
from typing import Final

from twinspan.v1 import audio_pb2

from gateway.exchange import Exchange
from gateway.operations import speech
from gateway.operations.forms import FormKind
from gateway.rpc.call import RpcCall
from gateway.services import forms

_TRANSCRIBE: Final = FormKind("transcription", "audio", "/audio/transcriptions", "file")
_TRANSLATE: Final = FormKind("translation", "audio", "/audio/translations", "file")


class AudioService:
    """Serves `twinspan.v1.AudioService`."""

    def __init__(self, exchange: Exchange, most_bytes: Callable[[], int]) -> None:
        """Makes the service; a form's files may have so many bytes."""
        self._exchange = exchange
        self._most_bytes = most_bytes

    async def Speak(self, request: audio_pb2.SpeakRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Speaks a text."""
        await speech.speak(self._exchange, request, call)

    async def Transcribe(self, requests: AsyncIterator[audio_pb2.TranscribeRequest], call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Writes down what is spoken."""
        await forms.answer(self._exchange, _TRANSCRIBE, requests, audio_pb2.TranscribeResponse, call, self._most_bytes())

    async def Translate(self, requests: AsyncIterator[audio_pb2.TranslateRequest], call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Writes it down in English."""
        await forms.answer(self._exchange, _TRANSLATE, requests, audio_pb2.TranslateResponse, call, self._most_bytes())
