"""Writes a chat's answer as a response: the events of OpenAI's stream in its order, and the whole.

Reasoning that a chat shows is the model's own text and no summary of it, so it becomes `response.reasoning_text` events and a part
of the type `reasoning_text` in a reasoning item, whose `summary` stays empty: OpenAI's types have that for models whose reasoning
is open. Messages and reasoning end where another kind of item begins, and so do calls whose arguments are whole. Other calls stay
open until the answer ends, since providers interleave the arguments of parallel calls. Above are the attempts; below are `items`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from orjson import Fragment
from twinspan.v1 import chat_pb2, content_pb2, events_pb2
from twinspan.v1.content_pb2 import FinishReason
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.responses.translation import logprobs
from gateway.responses.translation.emitter import Emitter
from gateway.responses.translation.items import COMPLETED, INCOMPLETE, CallItem, ContentItem, Item

_INCOMPLETE: Final[Mapping[FinishReason.ValueType, str]] = {
    content_pb2.FINISH_REASON_LENGTH: "max_output_tokens",
    content_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}
_ERROR_CODES: Final[Mapping[ErrorKind.ValueType, str]] = {
    ErrorKind.ERROR_KIND_RATE_LIMITED: "rate_limit_exceeded",
    ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED: "rate_limit_exceeded",
    ErrorKind.ERROR_KIND_INVALID_REQUEST: "invalid_prompt",
    ErrorKind.ERROR_KIND_CONTEXT_EXCEEDED: "invalid_prompt",
}
_TIERS: Final = frozenset({"auto", "default", "flex", "scale", "priority", "fast", "ultrafast"})
_FUNCTION_CALL: Final = -1
"""The number of a call of the older functions interface, which has none."""


class ResponseWriter:
    """One response, from the first events of the chat to its end.

    Attributes:
        response: The whole response as JSON, once it has ended; None until then.
    """

    __slots__ = (
        "_calls",
        "_content",
        "_emitter",
        "_head",
        "_items",
        "_last",
        "_logprobs",
        "_reason",
        "_settings",
        "_shows_logprobs",
        "_usage",
        "response",
    )

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        model: str,
        created_at: int,
        new_id: Callable[[str], str],
        shows_logprobs: bool = False,
    ) -> None:
        """Makes a writer.

        Args:
            settings: What the response repeats of its request.
            model: The model's name, unless the provider gives it.
            created_at: When it begins, in seconds since 1970.
            new_id: Returns a new identifier with a prefix, such as `msg_`.
            shows_logprobs: Whether it shows log probabilities.
        """
        self.response: bytes | None = None
        self._emitter = Emitter(new_id)
        self._head: dict[str, Any] = {"id": "", "object": "response", "created_at": created_at, "model": model}
        self._settings = settings
        self._shows_logprobs = shows_logprobs
        self._items: list[Item] = []
        self._content: ContentItem | None = None
        self._calls: dict[int, CallItem] = {}
        self._last: Item | None = None
        self._logprobs: list[dict[str, Any]] = []
        self._reason: FinishReason.ValueType = content_pb2.FINISH_REASON_UNSPECIFIED
        self._usage: content_pb2.Usage | None = None

    def add(self, answer: chat_pb2.StreamResponse) -> list[events_pb2.JsonEvent]:
        """Adds events of the chat, and returns those of the response that follow from them."""
        for event in answer.events:
            if event.HasField("text"):
                self._begin()
                self._write("message", "output_text", event.text)
            else:
                self._add_chunk(event.chunk)
        return self._emitter.take()

    def finish(self, now: int) -> list[events_pb2.JsonEvent]:
        """Ends the response as the chat has ended, and returns the events of its end.

        Args:
            now: The time, in seconds since 1970.
        """
        self._begin()
        reason = _INCOMPLETE.get(self._reason)
        for item in self._items:
            item.close(INCOMPLETE if reason is not None and item is self._last else COMPLETED)
        if reason is None:
            self._end(COMPLETED, completed_at=now)
        else:
            self._end(INCOMPLETE, incomplete_details={"reason": reason})
        return self._emitter.take()

    def fail(self, kind: ErrorKind.ValueType, message: str) -> list[events_pb2.JsonEvent]:
        """Ends the response with an error, and returns the events of its end. Items under way stay incomplete.

        Args:
            kind: What went wrong.
            message: What to tell the client.
        """
        self._begin()
        self._end("failed", error={"code": _ERROR_CODES.get(kind, "server_error"), "message": message})
        return self._emitter.take()

    def _begin(self) -> None:
        if self._head["id"]:
            return
        self._head["id"] = self._emitter.new_id("resp_")
        for kind in ("response.created", "response.in_progress"):
            self._emitter.emit(kind, response=self._shown("in_progress"))

    def _end(self, status: str, **fields: Any) -> None:
        response = self.response = orjson.dumps(self._shown(status, **fields))
        self._emitter.emit(f"response.{status}", response=Fragment(response))

    def _shown(self, status: str, **fields: Any) -> dict[str, Any]:
        return {
            **self._head,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            **self._settings,
            "output": [item.shown(INCOMPLETE) for item in self._items if item.begun],
            "usage": _usage(self._usage) if self._usage is not None else None,
            **fields,
        }

    def _add_chunk(self, chunk: chat_pb2.Chunk) -> None:
        if chunk.HasField("info"):
            self._head["model"] = chunk.info.model or self._head["model"]
            if chunk.info.service_tier in _TIERS:
                self._settings = {**self._settings, "service_tier": chunk.info.service_tier}
        self._begin()
        if chunk.HasField("usage"):
            self._usage = chunk.usage
        for delta in chunk.choices:
            if delta.index == 0:  # a response is one answer
                self._add_delta(delta)

    def _add_delta(self, delta: chat_pb2.ChoiceDelta) -> None:
        if self._shows_logprobs and delta.HasField("logprobs"):
            self._logprobs += logprobs.of_text(delta.logprobs)
        if delta.reasoning:
            self._write("reasoning", "reasoning_text", delta.reasoning)
        if delta.text:
            self._write("message", "output_text", delta.text)
        if delta.refusal:
            self._write("message", "refusal", delta.refusal)
        for call in delta.tool_calls:
            self._call(call.index).add(call.id, call.name, call.arguments)
        if delta.HasField("function_call"):
            self._call(_FUNCTION_CALL).add("", delta.function_call.name, delta.function_call.arguments)
        if delta.finish_reason:
            self._reason = delta.finish_reason

    def _write(self, item: str, part: str, piece: str) -> None:
        """Adds a piece of a text, to the item under way if that is of its kind."""
        if not piece:
            return
        content = self._content
        if content is None or content.kind != item:
            self._leave()
            self._leave_calls()
            content = self._content = ContentItem(self._emitter, len(self._items), item)
            self._items.append(content)
        self._last = content
        held: list[dict[str, Any]] = []
        if part == "output_text":
            held, self._logprobs = self._logprobs, held
        content.add(part, piece, held)

    def _call(self, number: int) -> CallItem:
        """Returns the call of this number, a new one if there is none."""
        self._leave()
        call = self._calls.get(number)
        if call is None:
            self._leave_calls()
            call = self._calls[number] = CallItem(self._emitter, len(self._items))
            self._items.append(call)
        self._last = call
        return call

    def _leave_calls(self) -> None:
        """Ends those calls that are whole, now that something else begins."""
        for call in self._calls.values():
            call.close_if_whole()

    def _leave(self) -> None:
        """Ends the message or reasoning that is under way."""
        if self._content is not None:
            self._content.close(COMPLETED)
            self._content = None


def _usage(usage: content_pb2.Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_creation_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
