"""POST /v1/audio/speech: AudioService.Speak, whose bytes leave as they come, with the provider's content type."""

from typing import Any

import grpc
from aiohttp import web
from twinspan.v1 import audio_pb2
from twinspan.v1.audio_pb2_grpc import AudioServiceStub

from bridge.call import Call
from bridge.rpc import Rpc


class AudioRoutes:
    """Routes of audio."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Makes the routes over a channel to the core."""
        self.speak = audio_pb2.DESCRIPTOR.services_by_name["AudioService"].methods_by_name["Speak"]
        """The method that speaks."""
        self._speak = Rpc.of(AudioServiceStub(channel), self.speak)

    async def speech(self, call: Call) -> web.StreamResponse:
        """Speaks a text. What fails after the first byte breaks the connection off, since audio has no place for an error."""
        messages = call.stream(self._speak, audio_pb2.SpeakRequest(openai_json=await call.body()))
        message: Any = await messages.read()
        await call.note_metadata(messages)
        headers = call.answer_headers(message.content_type)
        headers["X-Content-Type-Options"] = "nosniff"
        response = web.StreamResponse(headers=headers)
        call.answering = True
        await response.prepare(call.http)
        while message is not grpc.aio.EOF:
            await response.write(message.content)
            message = await messages.read()
        await response.write_eof()
        return response
