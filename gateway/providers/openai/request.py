"""Writes a `ChatRequest` as the body of an OpenAI-compatible POST /chat/completions."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from google.protobuf.message import Message
from orjson import Fragment
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.content_pb2 import Role, ToolChoiceMode

_ROLE_NAMES: Mapping[Role.ValueType, str] = {
    content_pb2.ROLE_DEVELOPER: "developer",
    content_pb2.ROLE_SYSTEM: "system",
    content_pb2.ROLE_USER: "user",
    content_pb2.ROLE_ASSISTANT: "assistant",
    content_pb2.ROLE_TOOL: "tool",
    content_pb2.ROLE_FUNCTION: "function",
}
_TOOL_CHOICE_NAMES: Mapping[ToolChoiceMode.ValueType, str] = {
    content_pb2.TOOL_CHOICE_MODE_AUTO: "auto",
    content_pb2.TOOL_CHOICE_MODE_NONE: "none",
    content_pb2.TOOL_CHOICE_MODE_REQUIRED: "required",
}

_Fields = dict[str, Any]
_Writer = Callable[[_Fields, Any], None]


def encode(chat: chat_pb2.ChatRequest, *, model: str, stream: bool, stream_options: bool = True) -> bytes:
    """Returns the request's body.

    Args:
        chat: What is asked.
        model: The model's name at the provider.
        stream: Whether the answer shall be streamed.
        stream_options: Whether the provider knows `stream_options`; if so, a stream is always asked for its usage.
    """
    fields: _Fields = {}
    texts: list[bytes] = []
    taken = ["stream"]
    for descriptor, value in chat.ListFields():
        if descriptor.name in _TEXTS:
            name = _TEXTS[descriptor.name]
            texts += (b',"%b":' % name.encode(), value)
            taken.append(name)
        else:
            _CHAT[descriptor.name](fields, value)
    fields["model"] = model
    for name in taken:
        fields.pop(name, None)  # of `extra`, which must not say it a second time
    options = fields.pop("stream_options", None)
    if stream:
        fields["stream"] = True
        if stream_options:
            given = orjson.loads(chat.extra["stream_options"]) if options is not None else None
            fields["stream_options"] = {**(given or {}), "include_usage": True}
    if not texts:
        return orjson.dumps(fields)
    # Long texts are put between the others in one step: as fragments they would be copied several times while the body grows.
    return b"".join((orjson.dumps(fields)[:-1], *texts, b"}"))


def _put(fields: _Fields, message: Message, table: Mapping[str, _Writer]) -> None:
    """Writes the fields of `message` that are set. `ListFields` gives just these, so nothing is asked for in vain."""
    for descriptor, value in message.ListFields():
        table[descriptor.name](fields, value)


def _plain(name: str) -> _Writer:
    def write(fields: _Fields, value: Any) -> None:
        fields[name] = value

    return write


def _json(name: str) -> _Writer:
    def write(fields: _Fields, value: Any) -> None:
        fields[name] = Fragment(value)

    return write


def _object(name: str, table: Mapping[str, _Writer]) -> _Writer:
    def write(fields: _Fields, value: Any) -> None:
        inner: _Fields = {}
        _put(inner, value, table)
        fields[name] = inner

    return write


def _objects(name: str, writer: Callable[[Any], Any]) -> _Writer:
    def write(fields: _Fields, value: Any) -> None:
        fields[name] = [writer(item) for item in value]

    return write


def _extra(fields: _Fields, value: Mapping[str, str]) -> None:
    """Writes what has no field of its own. It comes last, and changes nothing that has one."""
    for name, text in value.items():
        fields.setdefault(name, Fragment(text))


def _list(name: str) -> _Writer:
    def write(fields: _Fields, value: Any) -> None:
        fields[name] = list(value)

    return write


def _role(fields: _Fields, value: Role.ValueType) -> None:
    fields["role"] = _ROLE_NAMES[value]


def _tool_choice(fields: _Fields, value: content_pb2.ToolChoice) -> None:
    if value.json:
        fields["tool_choice"] = Fragment(value.json)
    elif value.mode == content_pb2.TOOL_CHOICE_MODE_NAMED:
        fields["tool_choice"] = {"type": "function", "function": {"name": value.name}}
    elif value.mode:
        fields["tool_choice"] = _TOOL_CHOICE_NAMES[value.mode]


def _tool(tool: content_pb2.Tool) -> Any:
    fields: _Fields = {"type": tool.type or "function"}
    function: _Fields = {}
    for descriptor, value in tool.ListFields():
        if descriptor.name in _FUNCTION:
            _FUNCTION[descriptor.name](function, value)
    if function:
        fields["function"] = function
    if tool.extra:
        _extra(fields, tool.extra)
    return fields


def _tool_call(call: content_pb2.ToolCall) -> _Fields:
    fields: _Fields = {"id": call.id, "type": call.type or "function"}
    if not call.type or call.name or call.arguments or call.function_extra:
        fields["function"] = function = {"name": call.name, "arguments": call.arguments}
        if call.function_extra:
            _extra(function, call.function_extra)
    if call.extra:
        _extra(fields, call.extra)
    return fields


def _part(part: content_pb2.Part) -> Any:
    kind = part.WhichOneof("kind")
    if kind == "json":
        return Fragment(part.json)
    fields: _Fields = {"type": _PART_TYPES[kind]} if kind else {}
    _put(fields, part, _PART)
    return fields


_PART_TYPES: Mapping[str, str] = {
    "text": "text",
    "image": "image_url",
    "audio": "input_audio",
    "file": "file",
    "refusal": "refusal",
    "thinking": "thinking",
}
_PART: Mapping[str, _Writer] = {
    "text": _plain("text"),
    "refusal": _plain("refusal"),
    "image": _object("image_url", {"url": _plain("url"), "detail": _plain("detail"), "extra": _extra}),
    "audio": _object("input_audio", {"data": _plain("data"), "format": _plain("format"), "extra": _extra}),
    "file": _object(
        "file",
        {"data": _plain("file_data"), "file_id": _plain("file_id"), "filename": _plain("filename"), "extra": _extra},
    ),
    # OpenAI has no such part; providers that know it take Anthropic's form.
    "thinking": lambda fields, value: _put(
        fields, value, {"text": _plain("thinking"), "signature": _plain("signature"), "extra": _extra}
    ),
    "extra": _extra,
}
_FUNCTION: Mapping[str, _Writer] = {
    "name": _plain("name"),
    "description": _plain("description"),
    "parameters": _json("parameters"),
    "strict": _plain("strict"),
    "function_extra": _extra,
}
_MESSAGE: Mapping[str, _Writer] = {
    "role": _role,
    "text": _plain("content"),
    "parts": _objects("content", _part),
    "name": _plain("name"),
    "tool_call_id": _plain("tool_call_id"),
    "tool_calls": _objects("tool_calls", _tool_call),
    "reasoning": _plain("reasoning_content"),
    "refusal": _plain("refusal"),
    "function_call": _object("function_call", {"name": _plain("name"), "arguments": _plain("arguments"), "extra": _extra}),
    "extra": _extra,
}


def _messages(fields: _Fields, messages: Any) -> None:
    table = _MESSAGE
    written: list[Any] = []
    for message in messages:
        entry: _Fields = {}
        for descriptor, value in message.ListFields():
            table[descriptor.name](entry, value)
        written.append(entry)
    fields["messages"] = written


_JSON_SCHEMA: Mapping[str, _Writer] = {
    "name": _plain("name"),
    "description": _plain("description"),
    "schema": _json("schema"),
    "strict": _plain("strict"),
    "json_schema_extra": _extra,
}


def _response_format(fields: _Fields, value: content_pb2.ResponseFormat) -> None:
    written: _Fields = {"type": value.type}
    schema: _Fields = {}
    for descriptor, inner in value.ListFields():
        if descriptor.name in _JSON_SCHEMA:
            _JSON_SCHEMA[descriptor.name](schema, inner)
    if schema:
        written["json_schema"] = schema
    _extra(written, value.extra)
    fields["response_format"] = written


_TEXTS: Mapping[str, str] = {"messages_json": "messages", "tools_json": "tools"}
_SCALARS = (
    *("model", "parallel_tool_calls", "temperature", "top_p", "max_tokens", "max_completion_tokens", "n", "seed"),
    *("presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "reasoning_effort", "user"),
)
_CHAT: Mapping[str, _Writer] = {
    **{name: _plain(name) for name in _SCALARS},
    "messages": _messages,
    "tools": _objects("tools", _tool),
    "tool_choice": _tool_choice,
    "stop": _list("stop"),
    "response_format": _response_format,
    "extra": _extra,
}
