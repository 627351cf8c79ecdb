"""The operation `speech`: a text goes in, and audio comes out, given on as it comes.

It is asked as `json_operation` does; its answer is bytes, which are not looked at. Above is AudioService.
"""

from typing import Any, Final, cast

import msgspec
from msgspec import Raw
from twinspan.v1 import audio_pb2, content_pb2

from gateway.exchange import Exchange
from gateway.operations.json_operation import JsonAttempt, JsonOperation, Kind
from gateway.operations.usage_watch import UsageWatch
from gateway.providers.sender import OutboundRequest, Sender, Timeouts
from gateway.routing.target import Target
from gateway.rpc.call import RpcCall
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan

_UNKNOWN: Final = "application/octet-stream"


class _Speech(msgspec.Struct):
    input: str
    model: str | None = None
    voice: str | dict[str, Raw] | None = None
    instructions: str | None = None
    response_format: str | None = None
    speed: float | None = None
    stream_format: str | None = None


_KIND: Final = Kind("speech", "audio", "/audio/speech", _Speech, creates=True, needs_model=False)


async def speak(exchange: Exchange, request: audio_pb2.SpeakRequest, call: RpcCall) -> None:
    """Writes audio to the caller, as it comes.

    Raises:
        GatewayError: There is none, or it broke off.
    """
    with await exchange.open(SpeechOperation(_KIND, cast("Any", request)), call) as attempt:
        await call.announce()
        await call.write(audio_pb2.SpeakResponse(content_type=attempt.content_type, content=attempt.first))
        while piece := await attempt.next():
            await call.write(audio_pb2.SpeakResponse(content=piece))


class SpeechOperation(JsonOperation):
    """A text to be spoken."""

    __slots__ = ()

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> "SpeechAttempt":
        """See `Operation.attempt`."""
        return SpeechAttempt(target, counts, span, self._kind, self._fields)


class SpeechAttempt(JsonAttempt):
    """Asks one target, and reads its audio.

    Attributes:
        content_type: What the audio is, once it is open.
        first: Its first bytes, once it is open; never empty then.
    """

    __slots__ = ("_watch", "content_type", "first")

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, kind: Kind, asked: dict[str, Any]) -> None:
        """Makes an attempt to get these fields answered; the rest as for `Attempt`."""
        super().__init__(target, counts, span, kind, asked)
        self.content_type = _UNKNOWN
        self.first = b""
        self._watch = UsageWatch(self.content_type)

    @property
    def usage(self) -> content_pb2.Usage | None:
        """See `Attempt.usage`: a stream of events may tell it, plain audio does not."""
        return self._watch.usage

    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """See `Attempt.open`: it returns with the first bytes."""
        upstream = await self._send(sender, self._outbound(self._asked, remaining_seconds))
        self.content_type = upstream.headers.get("content-type") or _UNKNOWN
        self._watch = UsageWatch(self.content_type)
        self.first = await self.next()
        if not self.first:
            raise self._silent()

    async def next(self) -> bytes:
        """Waits for the bytes that come next, and returns them; none after the last.

        Raises:
            GatewayError: The answer broke off or stalled.
        """
        assert self._upstream is not None  # noqa: S101 (for the type checker: `open` has set it)
        piece = await self._upstream.next_piece()
        self._watch.see(piece)
        if piece:
            self._counts.chunk(self._span.sampled_trace_id)
        else:
            self._done = True
        return piece

    def _outbound(self, asked: Any, remaining_seconds: float) -> OutboundRequest:
        request = super()._outbound(asked, remaining_seconds)
        limits = self.target.provider.timeouts
        request.timeouts = Timeouts(limits.connect, limits.first_token, limits.idle, remaining_seconds)
        return request
