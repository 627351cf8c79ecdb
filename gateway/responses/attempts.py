"""Attempts to have a response made: by a provider that has the Responses API, or by chat with one that has not.

Both kinds are read in the same way, whole or as events, so that an agent may have targets of either. A translated attempt holds a
chat's own and writes what that reads. Above is `operation`, which decides; below are the attempts of JSON operations and of chat,
and the translation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw
from twinspan.v1 import chat_pb2, content_pb2, events_pb2

from gateway.attempt import Attempt
from gateway.errors import GatewayError
from gateway.operations import json_text
from gateway.operations.chat import ChatAttempt, Form
from gateway.operations.json_operation import JsonAttempt, Kind
from gateway.operations.json_stream import JsonStreamAttempt
from gateway.providers.sender import Sender
from gateway.responses.translation.reading import NULL
from gateway.responses.translation.writer import ResponseWriter
from gateway.routing.target import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan


class _End(msgspec.Struct):
    response: Raw = NULL


_END = msgspec.json.Decoder(_End)


class NativeWhole(JsonAttempt):
    """Has a provider answer whole that has the Responses API."""

    __slots__ = ()

    @property
    def response(self) -> bytes | None:
        """The whole response; None until there is one."""
        return self.body or None


class NativeStream(JsonStreamAttempt):
    """Has a provider answer as events that has the Responses API."""

    __slots__ = ("_end",)

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, kind: Kind, asked: dict[str, Any]) -> None:
        """Makes an attempt to get these fields answered; the rest as for `Attempt`."""
        super().__init__(target, counts, span, kind, asked, {})
        self._end = ""

    @property
    def response(self) -> bytes | None:
        """The whole response, as the last event holds it; None until that has come."""
        if not self._end:
            return None
        response = _END.decode(self._end).response
        return None if response == NULL else bytes(response)

    def _read(self, payload: bytes, events: list[events_pb2.JsonEvent]) -> None:
        super()._read(payload, events)
        if events and events[-1].type in self._kind.ends:
            self._end = events[-1].json


@dataclass(frozen=True, slots=True)
class Order:
    """What a translated attempt needs, all of it told by the operation.

    Attributes:
        chat: Returns the chat that is to be had, or raises a `GatewayError` if it cannot be.
        writer: Returns what writes the answer.
        now: Returns the time, in whole seconds since 1970.
    """

    chat: Callable[[], chat_pb2.ChatRequest]
    writer: Callable[[], ResponseWriter]
    now: Callable[[], int]


class _Translated(Attempt):
    """Chats with a provider that has no Responses API, and writes a response of what it says."""

    __slots__ = ("_chat", "_order", "_writer")

    form: Form

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, order: Order) -> None:
        """Makes an attempt to get this answered; the rest as for `Attempt`."""
        super().__init__(target, counts, span)
        self._order = order
        self._writer: ResponseWriter | None = None
        self._chat: ChatAttempt | None = None

    @property
    def response(self) -> bytes | None:
        """The whole response; None until it has ended."""
        return self._writer.response if self._writer is not None else None

    @property
    def info(self) -> chat_pb2.ResponseInfo | None:
        """See `Attempt.info`."""
        return self._chat.info if self._chat is not None else None

    @property
    def usage(self) -> content_pb2.Usage | None:
        """See `Attempt.usage`."""
        return self._chat.usage if self._chat is not None else None

    @property
    def finish_reasons(self) -> "list[content_pb2.FinishReason.ValueType]":
        """See `Attempt.finish_reasons`."""
        return self._chat.finish_reasons if self._chat is not None else []

    def settle(self, fault: BaseException | None) -> float | None:
        """See `Attempt.settle`."""
        if self._chat is None:
            return super().settle(fault)
        cost_usd = self._chat.settle(fault)
        self.empty = self._chat.empty
        return cost_usd

    def may_have_acted(self, error: GatewayError) -> bool:
        """See `Attempt.may_have_acted`."""
        return self._chat is not None and self._chat.may_have_acted(error)

    async def _open(self, sender: Sender, remaining_seconds: float) -> tuple[ResponseWriter, list[events_pb2.JsonEvent]]:
        """Opens the chat, and returns the writer with the first events."""
        chat = ChatAttempt(self.target, self._counts, self._span, self._order.chat(), self.form)
        self._chat = chat
        writer = self._writer = self._order.writer()
        await chat.open(sender, remaining_seconds)
        return writer, writer.add(chat.first)


class TranslatedWhole(_Translated):
    """Has a provider answer whole that has chat.

    Attributes:
        body: The response, once it is open: a JSON object.
        fields: Its fields, unread.
    """

    __slots__ = ("body", "fields")

    form = Form.WHOLE

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, order: Order) -> None:
        """Makes an attempt to get this answered; the rest as for `Attempt`."""
        super().__init__(target, counts, span, order)
        self.body = b""
        self.fields: json_text.Fields = {}

    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """See `Attempt.open`: it returns with the whole answer."""
        writer, _ = await self._open(sender, remaining_seconds)
        writer.finish(self._order.now())
        self.is_whole = True
        self.body = writer.response or b""
        self.fields = json_text.scan(self.body)


class TranslatedStream(_Translated):
    """Has a provider answer as events that has chat.

    Attributes:
        first: The first events, once it is open; never empty then.
    """

    __slots__ = ("_fault", "first")

    form = Form.STREAM

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, order: Order) -> None:
        """Makes an attempt to get this answered; the rest as for `Attempt`."""
        super().__init__(target, counts, span, order)
        self.first: list[events_pb2.JsonEvent] = []
        self._fault: GatewayError | None = None

    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """See `Attempt.open`: it returns with the first events."""
        _, self.first = await self._open(sender, remaining_seconds)

    async def next(self) -> list[events_pb2.JsonEvent]:
        """Waits for the events that come next, and returns them; none after the last.

        A response that breaks off ends with an event that says so, and the error follows.

        Raises:
            GatewayError: The answer broke off, stalled or turned into an error.
        """
        if self._fault is not None:
            raise self._fault
        chat, writer = self._chat, self._writer
        if chat is None or writer is None or writer.response is not None:
            return []
        events: list[events_pb2.JsonEvent] = []
        while not events:
            try:
                answer = await chat.next()
            except GatewayError as error:
                self._fault = error
                return writer.fail(error.kind, self.target.provider.cleansed(error.message))
            events = writer.finish(self._order.now()) if answer is None else writer.add(answer)
        return events
