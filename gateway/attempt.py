"""One attempt: one request to one target, from the first byte sent to the last event read.

Above is the exchange, which decides whom to ask and when to stop; below are the adapter, which knows bytes, and the sender, which
moves them. An attempt never repeats itself.
"""

import asyncio
from collections.abc import Awaitable
from enum import Enum, auto

from twinspan.v1 import chat_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.providers.openai import chunks, faults, request
from gateway.providers.sender import OutboundRequest, Sender, Timeouts, UpstreamResponse
from gateway.providers.sse import SSEDecoder
from gateway.routing.catalogue import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan

_DONE = b"[DONE]"
_ERROR_BODY_LIMIT = 64 * 1024
_BODY_LIMIT = 64 * 1024 * 1024


class Form(Enum):
    """In which form an answer is wanted."""

    STREAM = auto()
    """As events, as they come."""
    WHOLE = auto()
    """As the one event of a whole answer."""
    TEXT = auto()
    """As the provider's text, if that is a whole answer in OpenAI's form, and else as `WHOLE`."""


class Attempt:
    """Asks one target and reads its answer.

    Attributes:
        target: Who is asked.
        status: The HTTP status of the answer; 0 before there is one.
        reader: Reads the answer's chunks, and knows its usage and names.
        text: The whole answer as text, once it is there; None if it comes as events.
    """

    __slots__ = ("_counts", "_decoder", "_done", "_fault", "_form", "_span", "_upstream", "reader", "status", "target", "text")

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, form: Form) -> None:
        """Makes an attempt, which must be settled.

        Args:
            target: Who is asked.
            counts: The attempt's entry in the metrics; ended with the attempt.
            span: The attempt's span; ended with the attempt.
            form: How the answer shall come.
        """
        self.target = target
        self.status = 0
        self.reader = chunks.ChunkReader(target.provider.name)
        self._counts = counts
        self._span = span
        self._form = form
        self.text: chat_pb2.CompleteResponse | None = None
        self._decoder = SSEDecoder()
        self._upstream: UpstreamResponse | None = None
        self._done = False
        self._fault: GatewayError | None = None

    async def open(self, chat: chat_pb2.ChatRequest, sender: Sender, remaining_seconds: float) -> chat_pb2.StreamResponse:
        """Sends the request and returns the first events.

        Args:
            chat: What is asked.
            sender: Sends it.
            remaining_seconds: How much time the whole attempt has.

        Raises:
            GatewayError: There are no events, so another attempt may be made.
        """
        provider = self.target.provider
        stream = self._form is Form.STREAM
        body = request.encode(chat, model=self.target.model, stream=stream, stream_options=provider.stream_options)
        limits = provider.timeouts
        if stream:
            timeouts = Timeouts(limits.connect, limits.first_token, limits.idle, remaining_seconds)
        else:  # a whole answer comes when it is finished, and is silent until then
            timeouts = Timeouts(limits.connect, remaining_seconds, remaining_seconds, remaining_seconds)
        upstream = self._upstream = await sender.send(
            OutboundRequest(
                url=provider.chat_url,
                headers={**provider.headers, **dict(self._span.headers)},
                body=body,
                timeouts=timeouts,
                provider=provider.name,
                model=self.target.model,
            )
        )
        self.status = upstream.status
        if upstream.status >= 400:
            body = await upstream.read(_ERROR_BODY_LIMIT)
            raise faults.of_status(upstream.status, upstream.headers, body, provider.name)
        if not stream or _is_json(upstream):
            response = chat_pb2.StreamResponse()
            body = await upstream.read(_BODY_LIMIT)
            if self._form is Form.TEXT:
                self.text = self.reader.carry_whole(body)
            if self.text is None:
                self.reader.read_whole(body, response)
            self._done = True
            self._counts.chunk(self._span.sampled_trace_id)
            return response
        return await self._next_events(self._span.sampled_trace_id) or chat_pb2.StreamResponse()

    def next(self) -> Awaitable[chat_pb2.StreamResponse | None]:
        """Waits for the events that come next, and returns them, or None after the last.

        Raises:
            GatewayError: The answer broke off, stalled or turned into an error.
        """
        return self._next_events()

    def settle(self, fault: BaseException | None) -> None:
        """Ends the attempt. Only the first call counts.

        The connection is kept for reuse if the answer came to its end, and else closed at once.

        Args:
            fault: Why it ended, if it did not end well.
        """
        if self._upstream is not None:
            if self._done and fault is None:
                self._upstream.release()  # the end of the body often comes a little after `[DONE]`
            self._upstream.close()
        provider = self.target.provider
        error: str | None = None
        if isinstance(fault, GatewayError):
            fault.message = provider.cleansed(fault.message)
            fault.model = fault.model or self.target.model
            error = fault.kind_name
        elif fault is not None:
            error = "cancelled" if isinstance(fault, asyncio.CancelledError | GeneratorExit) else "internal_error"
        self._counts.end(error, usage=self.reader.usage, trace_id=self._span.sampled_trace_id)
        self._span.end(fault, status=self.status)

    async def _next_events(self, sampled_trace_id: str | None = None) -> chat_pb2.StreamResponse | None:
        if self._fault is not None:
            raise self._fault
        if self._done:
            return None
        response = chat_pb2.StreamResponse()
        assert self._upstream is not None  # noqa: S101 (for the type checker: `open` has set it)
        while not self._done and not response.events:
            piece = await self._upstream.next_piece()
            try:
                self._read(piece, response)
            except GatewayError as error:
                if not response.events:
                    raise
                self._fault = error  # what came before it is the client's to see
        if not response.events:
            return None
        self._counts.chunk(sampled_trace_id)
        return response

    def _read(self, piece: bytes, response: chat_pb2.StreamResponse) -> None:
        """Adds the events of a piece of the body to `response`; an empty piece is the body's end."""
        reader = self.reader
        for payload in self._decoder.feed(piece) if piece else self._decoder.finish():
            if payload == _DONE:
                self._done = True
            else:
                reader.read(payload, response)
        if not piece and not self._done:
            self._done = True
            if reader.has_output and not reader.finish_reasons:  # a missing `[DONE]` is forgiven, a missing end is not
                raise self._broken("broke off in the middle of the answer", ErrorKind.ERROR_KIND_NETWORK_ERROR)
        if self._done and not reader.has_output and not reader.finish_reasons and self.target.provider.empty_stream_as_error:
            response.Clear()
            raise self._broken("ended the answer without any output", ErrorKind.ERROR_KIND_PROVIDER_ERROR)

    def _broken(self, what: str, kind: ErrorKind.ValueType) -> GatewayError:
        provider = self.target.provider.name
        return GatewayError(
            kind, f"The provider '{provider}' {what}. Try again, or another model.", provider=provider, model=self.target.model
        )


def _is_json(upstream: UpstreamResponse) -> bool:
    """Tells whether a provider answered whole where a stream was asked for, as some do for some models."""
    return upstream.headers.get("content-type", "").startswith("application/json")
