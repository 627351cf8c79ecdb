"""Reads the body of POST /v1/chat/completions into a `ChatRequest`.

Messages and tools stay JSON text (`ChatRequest.messages_json`), since the bridge has no use for what they say; `body` has checked
their types. What a request may hold is the core's to judge.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.content_pb2 import ToolChoiceMode

from bridge.dialects.fields import (
    OPTIONAL_OBJECT,
    InvalidFieldError,
    Reader,
    decoded,
    flattened,
    json_text,
    nested,
    read_fields,
    scalar,
    text,
)
from bridge.dialects.openai_chat.body import scan

_TOOL_CHOICES: Mapping[str, ToolChoiceMode.ValueType] = {
    "auto": content_pb2.TOOL_CHOICE_MODE_AUTO,
    "none": content_pb2.TOOL_CHOICE_MODE_NONE,
    "required": content_pb2.TOOL_CHOICE_MODE_REQUIRED,
}
_BOOLEAN = msgspec.json.Decoder(bool | None)
_MODEL = msgspec.json.Decoder(str | None)
_STOP = msgspec.json.Decoder(str | list[str] | None)


class ChatBody:
    """A request's body, scanned but not yet put into a message.

    Attributes:
        stream: The body's `stream`; None if it was absent.
        include_usage: Whether a stream shall show its usage.
    """

    __slots__ = ("_body", "include_usage", "stream")

    def __init__(self, body: bytes) -> None:
        """Scans the body.

        Raises:
            InvalidFieldError: It is not a JSON object, or a message, a tool or what says how to answer has the wrong type.
        """
        self._body = scan(body)
        self.stream: bool | None = None
        self.include_usage = False
        fields = self._body.fields
        asked = {name: fields.pop(name) for name in _DELIVERY if name in fields}
        if asked:
            read_fields(self, asked, _DELIVERY)

    def fill(self, chat: chat_pb2.ChatRequest) -> None:
        """Puts the body into `chat`.

        Raises:
            InvalidFieldError: A field has the wrong type.
        """
        if self._body.messages:
            chat.messages_json = self._body.messages
        if self._body.tools:
            chat.tools_json = self._body.tools
        read_fields(chat, self._body.fields, _CHAT)

    def keep(self, name: str, raw: Raw) -> None:
        """Leaves a field to be carried as it is."""
        self._body.fields[name] = raw


def _stream(body: Any, raw: Raw) -> None:
    body.stream = decoded(_BOOLEAN, raw, "a boolean")


def _stream_options(body: Any, raw: Raw) -> None:
    options = decoded(OPTIONAL_OBJECT, raw, "an object") or {}
    if "include_usage" in options:
        try:
            body.include_usage = bool(decoded(_BOOLEAN, options.pop("include_usage"), "a boolean"))
        except InvalidFieldError as error:
            raise error.within("include_usage") from None
    if options:
        body.keep("stream_options", Raw(msgspec.json.encode(options)))


_DELIVERY: Mapping[str, Reader] = {"stream": _stream, "stream_options": _stream_options}


def _model(chat: Any, raw: Raw) -> None:
    chat.model = decoded(_MODEL, raw, "a string") or ""


def _tool_choice(chat: Any, raw: Raw) -> None:
    match msgspec.json.decode(raw):
        case None:
            chat.extra["tool_choice"] = "null"
        case str(mode) if mode in _TOOL_CHOICES:
            chat.tool_choice.mode = _TOOL_CHOICES[mode]
        case {"type": "function", "function": {"name": str(name), **more}, **others} if not more and not others:
            chat.tool_choice.mode = content_pb2.TOOL_CHOICE_MODE_NAMED
            chat.tool_choice.name = name
        case _:
            chat.tool_choice.json = json_text(raw)


def _stop(chat: Any, raw: Raw) -> None:
    value = decoded(_STOP, raw, "a string or an array of strings")
    if value:
        chat.stop.extend([value] if isinstance(value, str) else value)
    else:
        chat.extra["stop"] = json_text(raw)


_JSON_SCHEMA: Mapping[str, Reader] = {
    "name": scalar("name", str, extra="json_schema_extra"),
    "description": scalar("description", str, extra="json_schema_extra"),
    "schema": text("schema"),
    "strict": scalar("strict", bool, extra="json_schema_extra"),
}
_RESPONSE_FORMAT: Mapping[str, Reader] = {
    "type": scalar("type", str),
    "json_schema": flattened(_JSON_SCHEMA, "json_schema_extra"),
}

_CHAT: Mapping[str, Reader] = {
    "model": _model,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": scalar("parallel_tool_calls", bool),
    "temperature": scalar("temperature", float),
    "top_p": scalar("top_p", float),
    "max_tokens": scalar("max_tokens", int),
    "max_completion_tokens": scalar("max_completion_tokens", int),
    "n": scalar("n", int),
    "stop": _stop,
    "seed": scalar("seed", int),
    "presence_penalty": scalar("presence_penalty", float),
    "frequency_penalty": scalar("frequency_penalty", float),
    "logprobs": scalar("logprobs", bool),
    "top_logprobs": scalar("top_logprobs", int),
    "response_format": nested("response_format", _RESPONSE_FORMAT),
    "reasoning_effort": scalar("reasoning_effort", str),
    "user": scalar("user", str),
}
