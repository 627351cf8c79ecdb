"""The operation `chat`: what is asked is a conversation, and what comes back are events.

Above are the exchange, which routes it, and ChatService; below is the adapter for OpenAI-compatible providers, which knows bytes.
"""

from collections.abc import Awaitable
from enum import Enum, auto

from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.asking import Caller
from gateway.attempt import Attempt
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.limits.estimate import Size, roughly_tokens
from gateway.operations.chat_request import beginning_of, check, instruct
from gateway.operations.fold import Fold
from gateway.operations.shortening import Shortening, shortening_of
from gateway.providers.openai import chunks, request
from gateway.providers.provider import Provider
from gateway.providers.sender import OutboundRequest, Sender, Timeouts, UpstreamResponse
from gateway.providers.sse import SSEDecoder
from gateway.routing.catalogue import Agent
from gateway.routing.target import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan, OperationSpan, Span, Tracing

_DONE = b"[DONE]"
_BODY_LIMIT = 64 * 1024 * 1024


class Form(Enum):
    """In which form an answer is wanted."""

    STREAM = auto()
    """As events, as they come."""
    WHOLE = auto()
    """As the one event of a whole answer."""
    TEXT = auto()
    """As the provider's text, if that is a whole answer in OpenAI's form, and else as `WHOLE`."""


class Chat:
    """A chat that is asked for."""

    __slots__ = ("_form", "_request", "_size", "model")

    creates = False
    repeatable = True
    service = None

    def __init__(self, request: chat_pb2.ChatRequest, form: Form) -> None:
        """Takes what is asked, which an agent's instructions may change, and the form of the answer."""
        self.model = request.model
        self._request = request
        self._form = form
        self._size: Size | None = None

    def check(self, *, trusted: bool) -> None:
        """See `Operation.check`."""
        check(self._request, trusted=trusted)

    def span(self, tracing: Tracing, parent: Span) -> OperationSpan:
        """See `Operation.span`."""
        return tracing.chat_span(parent, self._request, stream=self._form is Form.STREAM)

    def instruct(self, agent: Agent) -> None:
        """See `Operation.instruct`."""
        instruct(self._request, agent.system_prompt, force=agent.force_system_prompt)
        if agent.system_prompt:
            self._size = None

    def url(self, provider: Provider) -> str:
        """See `Operation.url`."""
        return provider.url_text

    def size(self) -> Size:
        """See `Operation.size`: by the request's length, and what it lets the model write."""
        if self._size is None:  # to measure a large request takes as long as to write it, and several ask
            request = self._request
            self._size = Size(roughly_tokens(request.ByteSize()), request.max_completion_tokens or request.max_tokens)
        return self._size

    def session(self) -> bytes | None:
        """See `Operation.session`."""
        return beginning_of(self._request)

    def shorter(self) -> "ShorterChat | None":
        """See `Operation.shorter`."""
        shortening = shortening_of(self._request)
        return None if shortening is None else ShorterChat(shortening, self._form)

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> "ChatAttempt":
        """See `Operation.attempt`."""
        return ChatAttempt(target, counts, span, self._request, self._form)


class ShorterChat:
    """A chat whose older part is to be summarised: see `Shorter`."""

    __slots__ = ("_form", "_shortening", "question")

    def __init__(self, shortening: Shortening, form: Form) -> None:
        """Takes what is to be summarised, and the form in which the chat is answered."""
        self._shortening = shortening
        self._form = form
        self.question = Chat(shortening.question, Form.WHOLE)

    async def read(self, attempt: "ChatAttempt") -> str:
        """See `Shorter.read`."""
        fold = Fold()
        fold.add(attempt.first)
        while (response := await attempt.next()) is not None:
            fold.add(response)
        choices = fold.result().choices
        return choices[0].message.text if choices else ""

    def with_summary(self, summary: str) -> Chat:
        """See `Shorter.with_summary`."""
        return Chat(self._shortening.with_summary(summary), self._form)


async def complete(
    exchange: Exchange, chat: chat_pb2.ChatRequest, caller: Caller, *, as_text: bool = False
) -> chat_pb2.CompleteResponse:
    """Answers a chat in one message; with `as_text` in the provider's own text, if that is in OpenAI's form.

    Raises:
        GatewayError: There is no whole answer.
    """
    with await exchange.open(Chat(chat, Form.TEXT if as_text else Form.WHOLE), caller) as answer:
        if answer.text is not None:
            return answer.text
        fold = Fold()
        fold.add(answer.first)
        while (response := await answer.next()) is not None:
            fold.add(response)
    return fold.result()


class ChatAttempt(Attempt):
    """Asks one target for a chat, and reads its events.

    Attributes:
        first: The first events, once it is open.
        text: The whole answer as text, once it is open; None if it comes as events.
    """

    __slots__ = ("_chat", "_decoder", "_fault", "_form", "_reader", "first", "text")

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, chat: chat_pb2.ChatRequest, form: Form) -> None:
        """Makes an attempt to get an answer to `chat` in this form; the rest as for `Attempt`."""
        super().__init__(target, counts, span)
        self.first = chat_pb2.StreamResponse()
        self.text: chat_pb2.CompleteResponse | None = None
        self._chat = chat
        self._form = form
        self._reader = chunks.ChunkReader(target.provider.name)
        self._decoder = SSEDecoder()
        self._fault: GatewayError | None = None

    @property
    def info(self) -> chat_pb2.ResponseInfo | None:
        """See `Attempt.info`."""
        return self._reader.info()

    @property
    def usage(self) -> content_pb2.Usage | None:
        """See `Attempt.usage`."""
        return self._reader.usage

    @property
    def finish_reasons(self) -> "list[content_pb2.FinishReason.ValueType]":
        """See `Attempt.finish_reasons`."""
        return self._reader.finish_reasons

    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """See `Attempt.open`: it returns with the first events, or with the whole answer."""
        provider = self.target.provider
        if self.target.model in provider.embedding_models:
            message = f"The model '{self.target.model}' embeds and does not chat. GET /v1/models lists others."
            raise GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, message, param="model")
        stream = self._form is Form.STREAM
        limits = provider.timeouts
        if stream:
            timeouts = Timeouts(limits.connect, limits.first_token, self.target.idle_seconds, remaining_seconds)
        else:  # a whole answer comes when it is finished, and is silent until then
            timeouts = Timeouts(limits.connect, remaining_seconds, remaining_seconds, remaining_seconds)
        upstream = await self._send(
            sender,
            OutboundRequest(
                url=provider.chat_url,
                headers={**provider.headers, **dict(self._span.headers)},
                body=request.encode(self._chat, model=self.target.model, stream=stream, stream_options=provider.stream_options),
                timeouts=timeouts,
                provider=provider.name,
                model=self.target.model,
            ),
        )
        if not stream or _is_json(upstream):
            body = await upstream.read(_BODY_LIMIT)
            if self._form is Form.TEXT:
                self.text = self._reader.carry_whole(body)
            if self.text is None:
                self._reader.read_whole(body, self.first)
            self._done = True
            self.is_whole = not stream
            self._counts.chunk(self._span.sampled_trace_id)
        else:
            self.first = await self._next_events(self._span.sampled_trace_id) or self.first

    def next(self) -> Awaitable[chat_pb2.StreamResponse | None]:
        """Waits for the events that come next, and returns them, or None after the last.

        Raises:
            GatewayError: The answer broke off, stalled or turned into an error.
        """
        return self._next_events()  # not awaited here, for that would cost every piece another coroutine

    async def drain(self) -> None:
        """See `Attempt.drain`."""
        while await self._next_events() is not None:
            pass

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
        reader = self._reader
        for payload in self._decoder.feed(piece) if piece else self._decoder.finish():
            if payload == _DONE:
                self._done = True
            else:
                reader.read(payload, response)
        if not piece and not self._done:
            self._done = True
            if reader.has_output and not reader.finish_reasons:  # a missing `[DONE]` is forgiven, a missing end is not
                raise self._broken("broke off in the middle of the answer", ErrorKind.ERROR_KIND_NETWORK_ERROR)
        if self._done and not reader.has_output and not reader.finish_reasons:
            self.empty = True
            if self.target.provider.empty_stream_as_error:
                response.Clear()
                raise self._silent()


def _is_json(upstream: UpstreamResponse) -> bool:
    """Tells whether a provider answered whole where a stream was asked for, as some do for some models."""
    return upstream.headers.get("content-type", "").startswith("application/json")
