"""Writes a streamed answer as OpenAI's `chat.completion.chunk` objects, one server-sent event a chunk."""

from typing import Any

import orjson
from orjson import Fragment
from twinspan.v1 import chat_pb2, content_pb2

from bridge.dialects.openai_chat.response import FINISH_REASON_NAMES, ROLE_NAMES, function_call, put_extra, put_info, usage

DONE = b"data: [DONE]\n\n"
"""What ends a stream, after an error too."""

_OWN_FIELDS = frozenset({"id", "object", "created", "model", "service_tier", "system_fingerprint", "choices"})


class StreamRenderer:
    """Writes the events of one stream, in order.

    All chunks of a stream begin alike, so that part is written once and kept. Nothing else is: the work for a chunk does not grow
    with the stream.
    """

    __slots__ = ("_fields", "_head", "_include_usage", "_text_head", "_text_tail")

    def __init__(self, *, include_usage: bool) -> None:
        """Makes a renderer.

        Args:
            include_usage: Whether the client asked to see usage. If not, it is left out, and so is a chunk that held nothing else.
        """
        self._include_usage = include_usage
        end = b',"usage":null}' if include_usage else b"}"
        self._text_tail = b'},"logprobs":null,"finish_reason":null}]' + end + b"\n\n"
        self._set_head(chat_pb2.ResponseInfo())

    def render(self, response: chat_pb2.StreamResponse) -> bytes:
        """Returns the server-sent events of a message of the stream; empty if it has nothing that the client should see."""
        pieces = []
        for event in response.events:
            if event.HasField("text"):
                pieces.append(self._text_head + orjson.dumps(event.text) + self._text_tail)
            else:
                pieces.append(self._chunk(event.chunk))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _set_head(self, info: chat_pb2.ResponseInfo) -> None:
        self._fields = fields = {"id": info.id, "object": "chat.completion.chunk"}
        put_info(fields, info)
        self._head = b"data: " + orjson.dumps(fields)[:-1] + b',"choices":['
        self._text_head = self._head + b'{"index":0,"delta":{"content":'

    def _chunk(self, chunk: chat_pb2.Chunk) -> bytes:
        if chunk.HasField("info"):
            self._set_head(chunk.info)
        has_usage = chunk.HasField("usage")
        if has_usage and not self._include_usage and not chunk.choices and not chunk.extra:
            return b""
        tail: dict[str, Any] = {}
        if self._include_usage:
            tail["usage"] = usage(chunk.usage) if has_usage else None
        put_extra(tail, chunk.extra)
        choices = [_choice(choice) for choice in chunk.choices]
        if chunk.extra and not _OWN_FIELDS.isdisjoint(chunk.extra):  # what came with an unexpected type stands in its own place
            return b"data: " + orjson.dumps({**self._fields, "choices": choices, **tail}) + b"\n\n"
        return self._head + orjson.dumps(choices)[1:] + (b"," + orjson.dumps(tail)[1:] if tail else b"}") + b"\n\n"


def _choice(choice: chat_pb2.ChoiceDelta) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    role = ROLE_NAMES.get(choice.role)
    if role is not None:
        delta["role"] = role
    if choice.HasField("text"):
        delta["content"] = choice.text
    if choice.HasField("reasoning"):
        delta["reasoning_content"] = choice.reasoning
    if choice.HasField("refusal"):
        delta["refusal"] = choice.refusal
    if choice.tool_calls:
        delta["tool_calls"] = [_tool_call(call) for call in choice.tool_calls]
    if choice.HasField("function_call"):
        delta["function_call"] = function_call(choice.function_call)
    put_extra(delta, choice.delta_extra)
    fields: dict[str, Any] = {
        "index": choice.index,
        "delta": delta,
        "logprobs": Fragment(choice.logprobs) if choice.HasField("logprobs") else None,
        "finish_reason": FINISH_REASON_NAMES.get(choice.finish_reason),
    }
    put_extra(fields, choice.extra)
    return fields


def _tool_call(call: content_pb2.ToolCallDelta) -> dict[str, Any]:
    fields: dict[str, Any] = {"index": call.index}
    if call.HasField("id"):
        fields["id"] = call.id
    if call.HasField("type"):
        fields["type"] = call.type
    function: dict[str, Any] = {}
    if call.HasField("name"):
        function["name"] = call.name
    if call.HasField("arguments"):
        function["arguments"] = call.arguments
    put_extra(function, call.function_extra)
    if function:
        fields["function"] = function
    put_extra(fields, call.extra)
    return fields
