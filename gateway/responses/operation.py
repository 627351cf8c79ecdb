"""The operation behind the Responses API: each target is asked in the way that its provider has.

A provider that declares the capability `responses` is sent the request as it came. Any other one is asked to chat, and the answer
is written as a response here. What the answer came to is told afterwards, for whoever keeps it. Above is ResponsesService; below
are `attempts` and the translation.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from msgspec import Raw
from twinspan.v1 import chat_pb2

from gateway.identifiers import Identifiers
from gateway.limits.estimate import Size, roughly_tokens
from gateway.operations import chat_request, json_text
from gateway.operations.json_operation import JsonOperation, JsonRequest, Kind
from gateway.providers.provider import Provider
from gateway.responses import native
from gateway.responses.attempts import NativeStream, NativeWhole, Order, TranslatedStream, TranslatedWhole
from gateway.responses.listing import listed
from gateway.responses.native import Instruction
from gateway.responses.translation.reading import NULL, given, string
from gateway.responses.translation.request import translate, wants_logprobs
from gateway.responses.translation.settings import settings
from gateway.responses.translation.writer import ResponseWriter
from gateway.routing.catalogue import Agent
from gateway.routing.target import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan, OperationSpan, Span, Tracing

CAPABILITY: Final = "responses"
"""What a provider declares that has the Responses API."""

_REASONING: Final = "reasoning"
_FALSE: Final = Raw(b"false")


class ItemIdentifiers:
    """Makes the identifiers of responses and of what is in them. One is enough for all requests."""

    def __init__(self) -> None:
        self._makers: dict[str, Identifiers] = {}

    def new(self, prefix: str) -> str:
        """Returns a new identifier with a prefix, such as `msg_`."""
        maker = self._makers.get(prefix)
        if maker is None:
            maker = self._makers[prefix] = Identifiers(prefix)
        return maker.new()


@dataclass(frozen=True, slots=True)
class Past:
    """What a request goes on from.

    Attributes:
        response_id: The response that it names as the previous one; None if it names none.
        history: The items of the requests and answers up to there, as JSON texts, oldest first. If there are any, no provider is
            told the id.
    """

    response_id: str | None = None
    history: Sequence[bytes] = field(default=())


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request came to.

    Attributes:
        response: The whole response, a JSON object. Its `status` says how it ended.
        input_items: The request's own input, as JSON texts: items, each with an id and a type.
        native: Whether a provider made it that has the Responses API; else it is the gateway's own, and so is its id.
        target: Who answered.
    """

    response: bytes
    input_items: tuple[bytes, ...]
    native: bool
    target: Target


class ResponsesOperation:
    """A request for a response, whole or streamed: what both have in common."""

    __slots__ = ("_attempt", "_checked", "_clock", "_instruction", "_json", "_kind", "_new_id", "_past")

    creates = False
    repeatable = False
    service = None

    def __init__(
        self,
        kind: Kind,
        request: JsonRequest,
        new_id: Callable[[str], str],
        past: Past | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes what is asked; `check` looks at it.

        Args:
            kind: What a provider with the Responses API is asked, and what a request must look like.
            request: The request.
            new_id: Returns a new identifier with a prefix, such as `msg_`.
            past: What it goes on from.
            clock: Seconds since 1970.
        """
        self._kind = kind
        self._json = JsonOperation(kind, request)
        self._new_id = new_id
        self._past = past or Past()
        self._clock = clock
        self._instruction: Instruction | None = None
        self._checked = False
        self._attempt: NativeWhole | NativeStream | TranslatedWhole | TranslatedStream | None = None

    @property
    def model(self) -> str:
        """See `Operation.model`."""
        return self._json.model

    @property
    def previous(self) -> str | None:
        """The id of the response that the request goes on from; None if it names none. Known once it is checked."""
        raw = given(self._json.raw, "previous_response_id")
        return None if raw is None else string(raw, "previous_response_id")

    @property
    def stores(self) -> bool:
        """Whether the response may be kept. Known once the request is checked."""
        return given(self._json.raw, "store") != _FALSE

    @property
    def native_target(self) -> Target | None:
        """Who makes the response, if it is a provider that has the Responses API; None if not, or not yet."""
        attempt = self._attempt
        return attempt.target if attempt is not None and _is_native(attempt.target.provider) else None

    @property
    def answered_now(self) -> bool:
        """Whether the response is whole."""
        return self._attempt is not None and self._attempt.response is not None

    def go_on_from(self, past: Past) -> None:
        """Has the request go on from what came before it."""
        self._past = past

    def check(self, *, trusted: bool) -> None:
        """See `Operation.check`. Whether chat has what is asked is not looked at before a target that has chat alone.

        Only the first call counts.
        """
        if not self._checked:
            self._json.check(trusted=trusted)
            self._checked = True

    def span(self, tracing: Tracing, parent: Span) -> OperationSpan:
        """See `Operation.span`."""
        return self._json.span(tracing, parent)

    def instruct(self, agent: Agent) -> None:
        """See `Operation.instruct`."""
        if agent.system_prompt:
            self._instruction = Instruction(agent.system_prompt, agent.force_system_prompt)

    def url(self, provider: Provider) -> str:
        """See `Operation.url`."""
        return provider.url(self._kind.path) if _is_native(provider) else provider.url_text

    def size(self) -> Size:
        """See `Operation.size`."""
        return Size(self._json.size().input_tokens + roughly_tokens(sum(map(len, self._past.history))))

    def session(self) -> bytes | None:
        """See `Operation.session`: by its instructions, and by the first that was said in it."""
        raw = self._json.raw
        asked = bytes(raw.get("input", NULL))
        first = next((text for _, text in json_text.elements(asked)), asked)
        said = self._past.history[0] if self._past.history else first
        return sha256(bytes(raw.get("instructions", NULL)) + b"\0" + said).digest()

    def shorter(self) -> None:
        """See `Operation.shorter`: a stored conversation is what it is."""

    def answered(self) -> Answered | None:
        """Returns what the request came to; None as long as it has not come to a response. Ask once the answer is left."""
        attempt = self._attempt
        response = attempt.response if attempt is not None else None
        if attempt is None or response is None:
            return None
        items = tuple(listed(given(self._json.raw, "input"), self._new_id))
        return Answered(response, items, _is_native(attempt.target.provider), attempt.target)

    def _order(self, target: Target) -> Order:
        """Returns what a target is to do that has chat alone."""

        def chat() -> chat_pb2.ChatRequest:
            reasons = _REASONING in target.provider.capabilities
            asked = translate(self._json.raw, model=self.model, history=self._past.history, keeps_reasoning=reasons)
            if self._instruction is not None:
                chat_request.instruct(asked, self._instruction.text, force=self._instruction.force)
            return asked

        return Order(chat, lambda: self._writer(target), lambda: int(self._clock()))

    def _writer(self, target: Target) -> ResponseWriter:
        fields = self._json.raw
        return ResponseWriter(
            settings(fields, self._past.response_id),
            model=target.model,
            created_at=int(self._clock()),
            new_id=self._new_id,
            shows_logprobs=wants_logprobs(fields),
        )


class WholeResponse(ResponsesOperation):
    """A request for a whole response."""

    __slots__ = ()

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> NativeWhole | TranslatedWhole:
        """See `Operation.attempt`."""
        attempt: NativeWhole | TranslatedWhole
        if _is_native(target.provider):
            asked = native.asked(self._json.raw, self._past.history, self._instruction)
            attempt = NativeWhole(target, counts, span, self._kind, asked)
        else:
            attempt = TranslatedWhole(target, counts, span, self._order(target))
        self._attempt = attempt
        return attempt


class StreamedResponse(ResponsesOperation):
    """A request for a response as events."""

    __slots__ = ()

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> NativeStream | TranslatedStream:
        """See `Operation.attempt`."""
        attempt: NativeStream | TranslatedStream
        if _is_native(target.provider):
            asked = native.asked(self._json.raw, self._past.history, self._instruction)
            attempt = NativeStream(target, counts, span, self._kind, asked)
        else:
            attempt = TranslatedStream(target, counts, span, self._order(target))
        self._attempt = attempt
        return attempt


def _is_native(provider: Provider) -> bool:
    return CAPABILITY in provider.capabilities
