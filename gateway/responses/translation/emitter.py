"""Numbers and writes the events of one response. Above are the writer and its items."""

from collections.abc import Callable
from typing import Any

import orjson
from twinspan.v1 import events_pb2


class Emitter:
    """The events of one response, in order, without a gap in their numbers.

    Attributes:
        new_id: Returns a new identifier with a prefix, such as `msg_`.
    """

    __slots__ = ("_events", "_number", "new_id")

    def __init__(self, new_id: Callable[[str], str]) -> None:
        self.new_id = new_id
        self._events: list[events_pb2.JsonEvent] = []
        self._number = 0

    def emit(self, kind: str, **fields: Any) -> None:
        """Adds an event."""
        text = orjson.dumps({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        self._events.append(events_pb2.JsonEvent(type=kind, json=text.decode()))

    def take(self) -> list[events_pb2.JsonEvent]:
        """Returns the events since it was last asked."""
        events, self._events = self._events, []
        return events
