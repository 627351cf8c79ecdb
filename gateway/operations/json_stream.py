"""JSON operations whose answer is a stream of events, each a JSON object that is carried on unread: completions, images.

They are asked as `json_operation` does, with `stream` set. Of the events only what the gateway needs is read: whether one is an
error, its `type`, and what was consumed. Above are the services; below are the decoder of server-sent events and the attempt.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec
from msgspec import Raw
from orjson import Fragment
from twinspan.v1 import content_pb2, events_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.exchange import Exchange
from gateway.operations.json_operation import JsonAttempt, JsonOperation, Kind, usage_of
from gateway.providers.openai import faults
from gateway.providers.sender import OutboundRequest, Sender, Timeouts
from gateway.providers.sse import SSEDecoder
from gateway.routing.target import Target
from gateway.rpc.call import RpcCall
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan

_DONE = b"[DONE]"
_BODY_LIMIT = 64 * 1024 * 1024
_USAGE = b'"usage"'
_ENDED: Final = re.compile(rb'"finish_reason"\s*:\s*"|"type"\s*:\s*"[\w.]+\.(?:completed|done)"')
"""What the last event but `[DONE]` and the usage says, in a completion and in a stream of typed events."""

_NULL: Final = Raw(b"null")


class _Event(msgspec.Struct):
    type: str | None = None
    error: Raw = _NULL
    usage: Raw = _NULL
    response: Raw = _NULL
    choices: list[Raw] | None = None


class _Told(msgspec.Struct):
    usage: Raw = _NULL


_EVENT = msgspec.json.Decoder(_Event)
_RESPONSE = msgspec.json.Decoder(_Told | None)


class StreamedAnswer(Protocol):
    """An answer that comes as events.

    Attributes:
        first: The first events; never empty.
    """

    first: list[events_pb2.JsonEvent]

    @property
    def usage(self) -> content_pb2.Usage | None:
        """What was consumed so far; None if the provider has not said."""

    async def next(self) -> list[events_pb2.JsonEvent]:
        """Waits for the events that come next, and returns them; none after the last."""


async def stream(exchange: Exchange, kind: Kind, request: Any, response: Callable[..., Any], call: RpcCall) -> None:
    """Writes the events of an answer to the caller, as they come, in messages of the class `response`.

    Raises:
        GatewayError: There is no answer, or it broke off.
    """
    with await exchange.open(JsonStream(kind, request), call) as attempt:
        await write(attempt, response, call)


async def write(answer: "StreamedAnswer", response: Callable[..., Any], call: RpcCall) -> None:
    """Writes the events of an answer that has begun, as `stream` does.

    Raises:
        GatewayError: It broke off.
    """
    await call.announce()
    events = answer.first
    while events:
        message = response(events=events)
        if (usage := answer.usage) is not None:
            message.usage.CopyFrom(usage)
        await call.write(message)
        events = await answer.next()


class JsonStream(JsonOperation):
    """A request of some kind, to be answered as a stream."""

    __slots__ = ()

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> "JsonStreamAttempt":
        """See `Operation.attempt`."""
        options: dict[str, Raw] = getattr(self._checked, "stream_options", None) or {}
        return JsonStreamAttempt(target, counts, span, self._kind, self._fields, options)


class JsonStreamAttempt(JsonAttempt):
    """Asks one target, and reads its events.

    Attributes:
        first: The first events, once it is open; never empty then.
    """

    __slots__ = ("_decoder", "_ended", "_fault", "_hides_usage", "first")

    def __init__(
        self,
        target: Target,
        counts: AttemptCounts,
        span: AttemptSpan,
        kind: Kind,
        asked: dict[str, Any],
        options: Mapping[str, Raw],
    ) -> None:
        """Makes an attempt to get these fields answered, with the client's `stream_options`; the rest as for `Attempt`."""
        fields = {**asked, "stream": True}
        hides_usage = kind.asks_for_usage and target.provider.stream_options and bytes(options.get("include_usage", b"")) != b"true"
        if hides_usage:
            kept = {name: Fragment(bytes(raw)) for name, raw in options.items()}
            fields["stream_options"] = {**kept, "include_usage": True}
        super().__init__(target, counts, span, kind, fields)
        self.first: list[events_pb2.JsonEvent] = []
        self._decoder = SSEDecoder()
        self._hides_usage = hides_usage
        self._ended = False
        self._fault: Exception | None = None

    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """See `Attempt.open`: it returns with the first events."""
        upstream = await self._send(sender, self._outbound(self._asked, remaining_seconds))
        if upstream.headers.get("content-type", "").startswith("application/json"):
            body = await upstream.read(_BODY_LIMIT)  # some providers answer whole all the same
            self._done = self._ended = True
            self._read(body, self.first)
        else:
            self.first = await self.next()
        if not self.first:
            raise self._silent()

    async def next(self) -> list[events_pb2.JsonEvent]:
        """Waits for the events that come next, and returns them; none after the last.

        Raises:
            GatewayError: The answer broke off, stalled or turned into an error.
        """
        if self._fault is not None:
            raise self._fault
        assert self._upstream is not None  # noqa: S101 (for the type checker: `open` has set it)
        events: list[events_pb2.JsonEvent] = []
        while not self._done and not events:
            piece = await self._upstream.next_piece()
            try:
                for payload in self._decoder.feed(piece) if piece else self._decoder.finish():
                    if payload == _DONE:
                        self._done = self._ended = True
                    else:
                        self._read(payload, events)
                if not piece:
                    self._finish()
            except Exception as error:
                if not events:
                    raise
                self._fault = error  # what came before it is the client's to see
        if events:
            self._counts.chunk(self._span.sampled_trace_id)
        return events

    def _finish(self) -> None:
        """Takes the body's end for the answer's; a missing `[DONE]` is forgiven, a missing end is not."""
        self._done = True
        if not self._ended:
            raise self._broken("broke off in the middle of the answer", ErrorKind.ERROR_KIND_NETWORK_ERROR)

    def _outbound(self, asked: Any, remaining_seconds: float) -> OutboundRequest:
        request = super()._outbound(asked, remaining_seconds)
        limits = self.target.provider.timeouts
        request.timeouts = Timeouts(limits.connect, limits.first_token, self.target.idle_seconds, remaining_seconds)
        return request

    def _read(self, payload: bytes, events: list[events_pb2.JsonEvent]) -> None:
        """Adds an event, unless nobody but the gateway has asked for it."""
        try:
            text = payload.decode()
            event = _EVENT.decode(payload)
        except (ValueError, RecursionError):
            message = "sent an event that is not a JSON object"
            raise self._broken(message, ErrorKind.ERROR_KIND_PROVIDER_ERROR) from None
        if bytes(event.error) != b"null":
            raise faults.in_band(bytes(event.error), self.target.provider.name)
        if _USAGE in payload and (usage := _usage_in(event)) is not None:
            self._usage = usage
            if self._hides_usage and event.choices == []:
                return
        ends = self._kind.ends
        self._ended = self._ended or (event.type in ends if ends else _ENDED.search(payload) is not None)
        events.append(events_pb2.JsonEvent(type=event.type or "", json=text))


def _usage_in(event: _Event) -> content_pb2.Usage | None:
    """Returns what an event says was consumed, itself or in the whole response that it holds."""
    if (usage := usage_of(event.usage)) is not None:
        return usage
    try:
        told = _RESPONSE.decode(event.response)
    except msgspec.MsgspecError:
        return None
    return usage_of(told.usage) if told is not None else None
