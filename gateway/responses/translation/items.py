"""The items of a response while they are written: messages, reasoning and calls, each with the events of its life.

Texts are kept as pieces, so that adding one costs the same however long the answer is. Above is `writer`; below is the emitter.
"""

from typing import Any, Protocol

import msgspec
from msgspec import Raw

from gateway.responses.translation.emitter import Emitter

COMPLETED = "completed"
INCOMPLETE = "incomplete"

_OBJECT = msgspec.json.Decoder(dict[str, Raw])


class Item(Protocol):
    """An item under way."""

    @property
    def begun(self) -> bool:
        """Whether its beginning has been told."""

    def close(self, status: str) -> None:
        """Ends it, with what is open within it; only the first call counts."""

    def shown(self, status: str) -> dict[str, Any]:
        """Returns it whole as it is now; `status` is said of it unless it has ended."""


class _Part:
    """A part of an item's content: text, refusal or reasoning text."""

    __slots__ = ("_event", "_field", "_fixed", "_kind", "_pieces", "_place", "logprobs")

    def __init__(self, emitter: Emitter, place: dict[str, Any], kind: str) -> None:
        self._kind = kind
        self._place = place
        self._field = "refusal" if kind == "refusal" else "text"
        self._event = f"response.{kind}"
        self._fixed: dict[str, Any] = {"annotations": []} if kind == "output_text" else {}
        self._pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        emitter.emit("response.content_part.added", **place, part=self.shown())

    def add(self, emitter: Emitter, piece: str, logprobs: list[dict[str, Any]]) -> None:
        self._pieces.append(piece)
        self.logprobs += logprobs
        emitter.emit(f"{self._event}.delta", **self._place, delta=piece, **self._with(logprobs))

    def close(self, emitter: Emitter) -> None:
        said = {self._field: "".join(self._pieces)}
        emitter.emit(f"{self._event}.done", **self._place, **said, **self._with(self.logprobs))
        emitter.emit("response.content_part.done", **self._place, part=self.shown())

    def shown(self) -> dict[str, Any]:
        said = {self._field: "".join(self._pieces)}
        return {"type": self._kind, **said, **self._fixed, **self._with(self.logprobs)}

    def _with(self, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"logprobs": logprobs} if self._kind == "output_text" else {}


class ContentItem:
    """A message or a reasoning, whose content comes in parts, one after the other."""

    __slots__ = ("_emitter", "_fixed", "_id", "_index", "_kind", "_open", "_parts", "_status", "kind")

    def __init__(self, emitter: Emitter, index: int, kind: str) -> None:
        """Begins an item of the kind `message` or `reasoning`, the response's item of this index."""
        message = kind == "message"
        self.kind = kind
        self._emitter = emitter
        self._index = index
        self._id = emitter.new_id("msg_" if message else "rs_")
        self._fixed: dict[str, Any] = {"role": "assistant"} if message else {"summary": []}
        self._parts: list[_Part] = []
        self._open = ""
        self._status = ""
        emitter.emit("response.output_item.added", output_index=index, item=self.shown("in_progress"))

    @property
    def begun(self) -> bool:
        """See `Item.begun`."""
        return True

    def add(self, kind: str, piece: str, logprobs: list[dict[str, Any]]) -> None:
        """Adds a piece of a part of some kind, such as `output_text`."""
        if self._open != kind:
            self._close_part()
            self._open = kind
            place = {"item_id": self._id, "output_index": self._index, "content_index": len(self._parts)}
            self._parts.append(_Part(self._emitter, place, kind))
        self._parts[-1].add(self._emitter, piece, logprobs)

    def close(self, status: str) -> None:
        """See `Item.close`."""
        if self._status:
            return
        self._close_part()
        self._status = status
        self._emitter.emit("response.output_item.done", output_index=self._index, item=self.shown(status))

    def shown(self, status: str) -> dict[str, Any]:
        """See `Item.shown`."""
        content = [part.shown() for part in self._parts]
        return {"id": self._id, "type": self.kind, "status": self._status or status, **self._fixed, "content": content}

    def _close_part(self) -> None:
        if self._open:
            self._open = ""
            self._parts[-1].close(self._emitter)


class CallItem:
    """A call of a function. It is shown once its name is known and its id is known or no longer to be waited for."""

    __slots__ = ("_call_id", "_emitter", "_id", "_index", "_name", "_pieces", "_status")

    def __init__(self, emitter: Emitter, index: int) -> None:
        """Begins a call, the response's item of this index."""
        self._emitter = emitter
        self._index = index
        self._id = ""
        self._call_id = ""
        self._name = ""
        self._pieces: list[str] = []
        self._status = ""

    @property
    def begun(self) -> bool:
        """See `Item.begun`."""
        return bool(self._id)

    def add(self, call_id: str, name: str, arguments: str) -> None:
        """Adds a piece, any part of which may be empty; of id and name the first one holds. What follows its end is left out."""
        if self._status:
            return
        if self._id:
            if arguments:
                self._add(arguments)
            return
        self._call_id = self._call_id or call_id
        self._name = self._name or name
        if arguments:
            self._pieces.append(arguments)
        if self._name and (self._call_id or self._pieces):
            self._show()

    def close_if_whole(self) -> None:
        """Ends it if its arguments are an object that says something: nothing but blanks could follow that."""
        if self._id and not self._status and self._pieces and self._pieces[-1].endswith("}") and _is_whole(self._pieces):
            self.close(COMPLETED)

    def close(self, status: str) -> None:
        """See `Item.close`."""
        if self._status:
            return
        if not self._id:
            self._show()
        arguments = "".join(self._pieces)
        emit = self._emitter.emit
        emit("response.function_call_arguments.done", item_id=self._id, output_index=self._index, arguments=arguments)
        self._status = status
        emit("response.output_item.done", output_index=self._index, item=self.shown(status))

    def shown(self, status: str) -> dict[str, Any]:
        """See `Item.shown`."""
        return {
            "id": self._id,
            "type": "function_call",
            "status": self._status or status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": "".join(self._pieces),
        }

    def _show(self) -> None:
        self._id = self._emitter.new_id("fc_")
        self._call_id = self._call_id or self._emitter.new_id("call_")
        held, self._pieces = self._pieces, []
        self._emitter.emit("response.output_item.added", output_index=self._index, item=self.shown("in_progress"))
        for piece in held:
            self._add(piece)

    def _add(self, piece: str) -> None:
        self._pieces.append(piece)
        kind = "response.function_call_arguments.delta"
        self._emitter.emit(kind, item_id=self._id, output_index=self._index, delta=piece)


def _is_whole(pieces: list[str]) -> bool:
    """Tells whether a call's arguments are an object with at least one field; some providers begin with an empty one."""
    try:
        return bool(_OBJECT.decode("".join(pieces)))
    except (ValueError, RecursionError):
        return False
