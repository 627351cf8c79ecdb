"""Looks for what was consumed in events that are carried on unread: transcriptions and speech as streams.

Above are the operations that carry bytes; below is the decoder of server-sent events. Only an event that names a usage is read.
"""

from typing import Final

import msgspec
from msgspec import Raw
from twinspan.v1 import content_pb2

from gateway.errors import GatewayError
from gateway.operations.json_operation import usage_of
from gateway.providers.sse import SSEDecoder

_USAGE: Final = b'"usage"'


class _Event(msgspec.Struct):
    usage: Raw = Raw(b"null")


_EVENT = msgspec.json.Decoder(_Event)


class UsageWatch:
    """Watches the bytes of one answer go by.

    Attributes:
        usage: What was consumed, as the provider last said; None if it has not said.
    """

    __slots__ = ("_decoder", "usage")

    def __init__(self, content_type: str) -> None:
        """Makes a watch over an answer of this type; only a stream of events is looked at."""
        self.usage: content_pb2.Usage | None = None
        self._decoder = SSEDecoder() if content_type.startswith("text/event-stream") else None

    def see(self, piece: bytes) -> None:
        """Looks at the bytes that come next; an empty piece is the end. What cannot be read is let go by."""
        if self._decoder is None:
            return
        try:
            payloads = list(self._decoder.feed(piece) if piece else self._decoder.finish())
        except GatewayError:  # an event that is too long to be kept
            self._decoder = None
            return
        for payload in payloads:
            if _USAGE in payload:
                self._read(payload)

    def _read(self, payload: bytes) -> None:
        try:
            said = usage_of(_EVENT.decode(payload).usage)
        except (msgspec.MsgspecError, RecursionError):
            return
        self.usage = said or self.usage
