"""Writes a whole answer as OpenAI's `chat.completion` object."""

from collections.abc import Mapping
from typing import Any

import orjson
from orjson import Fragment
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.content_pb2 import FinishReason, Role

ROLE_NAMES: Mapping[Role.ValueType, str] = {
    content_pb2.ROLE_DEVELOPER: "developer",
    content_pb2.ROLE_SYSTEM: "system",
    content_pb2.ROLE_USER: "user",
    content_pb2.ROLE_ASSISTANT: "assistant",
    content_pb2.ROLE_TOOL: "tool",
    content_pb2.ROLE_FUNCTION: "function",
}
"""OpenAI's names of the vocabulary's roles."""

FINISH_REASON_NAMES: Mapping[FinishReason.ValueType, str] = {
    content_pb2.FINISH_REASON_STOP: "stop",
    content_pb2.FINISH_REASON_LENGTH: "length",
    content_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    content_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
    content_pb2.FINISH_REASON_FUNCTION_CALL: "function_call",
}
"""OpenAI's names of the vocabulary's finish reasons."""


def render(response: chat_pb2.CompleteResponse) -> bytes:
    """Returns the JSON of a whole answer."""
    fields: dict[str, Any] = {"id": response.info.id, "object": "chat.completion"}
    put_info(fields, response.info)
    fields["choices"] = [_choice(choice) for choice in response.choices]
    if response.HasField("usage"):
        fields["usage"] = usage(response.usage)
    put_extra(fields, response.extra)
    return orjson.dumps(fields)


def put_info(fields: dict[str, Any], info: chat_pb2.ResponseInfo) -> None:
    """Adds what identifies an answer, but its id."""
    fields["created"] = info.created
    fields["model"] = info.model
    if info.HasField("service_tier"):
        fields["service_tier"] = info.service_tier
    if info.HasField("system_fingerprint"):
        fields["system_fingerprint"] = info.system_fingerprint


def put_extra(fields: dict[str, Any], extra: Mapping[str, str]) -> None:
    """Adds fields that the vocabulary does not know, as they came."""
    for name, value in extra.items():
        fields[name] = Fragment(value)


def usage(message: content_pb2.Usage) -> dict[str, Any]:
    """Returns OpenAI's form of what a request consumed."""
    fields: dict[str, Any] = {
        "prompt_tokens": message.input_tokens,
        "completion_tokens": message.output_tokens,
        "total_tokens": message.total_tokens,
    }
    details: dict[str, Any] = {}
    if message.HasField("cached_input_tokens"):
        details["cached_tokens"] = message.cached_input_tokens
    if message.HasField("cache_creation_input_tokens"):
        details["cache_creation_tokens"] = message.cache_creation_input_tokens
    put_extra(details, message.input_details_extra)
    if details:
        fields["prompt_tokens_details"] = details
    details = {}
    if message.HasField("reasoning_tokens"):
        details["reasoning_tokens"] = message.reasoning_tokens
    put_extra(details, message.output_details_extra)
    if details:
        fields["completion_tokens_details"] = details
    put_extra(fields, message.extra)
    return fields


def _choice(choice: chat_pb2.Choice) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "index": choice.index,
        "message": _message(choice.message),
        "logprobs": Fragment(choice.logprobs) if choice.HasField("logprobs") else None,
        "finish_reason": FINISH_REASON_NAMES.get(choice.finish_reason),
    }
    put_extra(fields, choice.extra)
    return fields


def _message(message: content_pb2.Message) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "role": ROLE_NAMES.get(message.role, "assistant"),
        "content": message.text if message.HasField("text") else None,
        "refusal": message.refusal if message.HasField("refusal") else None,
    }
    if message.HasField("reasoning"):
        fields["reasoning_content"] = message.reasoning
    if message.tool_calls:
        fields["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.HasField("function_call"):
        fields["function_call"] = function_call(message.function_call)
    put_extra(fields, message.extra)
    return fields


def _tool_call(call: content_pb2.ToolCall) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": call.id, "type": call.type or "function"}
    if not call.type or call.name or call.arguments or call.function_extra:
        fields["function"] = {"name": call.name, "arguments": call.arguments}
        put_extra(fields["function"], call.function_extra)
    put_extra(fields, call.extra)
    return fields


def function_call(call: content_pb2.FunctionCall) -> dict[str, Any]:
    """Returns a call, or a piece of one, of the older functions interface."""
    fields: dict[str, Any] = {}
    if call.HasField("name"):
        fields["name"] = call.name
    if call.HasField("arguments"):
        fields["arguments"] = call.arguments
    put_extra(fields, call.extra)
    return fields
