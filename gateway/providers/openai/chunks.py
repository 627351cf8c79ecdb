"""Reads the answers of OpenAI-compatible providers, chunk by chunk or whole, into events.

The reader is tolerant, as providers differ: what has an unexpected name or type is kept in `extra` and goes to the client as it
came. A whole answer becomes one chunk, so that everything after this adapter knows streams only.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.content_pb2 import FinishReason, Role
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.providers.openai import faults

_ROLES: Mapping[str, Role.ValueType] = {
    "developer": content_pb2.ROLE_DEVELOPER,
    "system": content_pb2.ROLE_SYSTEM,
    "user": content_pb2.ROLE_USER,
    "assistant": content_pb2.ROLE_ASSISTANT,
    "tool": content_pb2.ROLE_TOOL,
    "function": content_pb2.ROLE_FUNCTION,
}
_FINISH_REASONS: Mapping[str, FinishReason.ValueType] = {
    "stop": content_pb2.FINISH_REASON_STOP,
    "length": content_pb2.FINISH_REASON_LENGTH,
    "tool_calls": content_pb2.FINISH_REASON_TOOL_CALLS,
    "content_filter": content_pb2.FINISH_REASON_CONTENT_FILTER,
    "function_call": content_pb2.FINISH_REASON_FUNCTION_CALL,
}


_INTEGER_LIMITS: Mapping[str, int] = {"index": 2**31}
"""Integer fields that are smaller than 64 bits in the vocabulary."""


class _TextDelta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str


class _TextChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    delta: _TextDelta
    index: int = 0
    finish_reason: None = None
    logprobs: None = None


class _TextChunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A chunk that adds text to one choice and says nothing else: nearly every chunk is one."""

    id: str
    created: int
    model: str
    choices: tuple[_TextChoice]
    object: str = ""
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: None = None


_TEXT_CHUNK = msgspec.json.Decoder(_TextChunk)


class ChunkReader:
    """Reads the chunks of one answer, in order.

    Attributes:
        finish_reasons: Why choices ended, in the order in which they did.
        has_output: Whether some choice has said anything at all.
        usage: What the request has consumed, as the provider last said.
    """

    __slots__ = ("_created", "_fingerprint", "_id", "_model", "_provider", "_tier", "finish_reasons", "has_output", "usage")

    def __init__(self, provider: str) -> None:
        """Makes a reader; `provider` is the name that errors give."""
        self._provider = provider
        self._id: str | None = None
        self._created = 0
        self._model = ""
        self._fingerprint: str | None = None
        self._tier: str | None = None
        self.finish_reasons: list[FinishReason.ValueType] = []
        self.has_output = False
        self.usage: content_pb2.Usage | None = None

    def info(self) -> chat_pb2.ResponseInfo | None:
        """Returns what identifies the answer; None before the first chunk."""
        if self._id is None:
            return None
        return chat_pb2.ResponseInfo(
            id=self._id,
            created=self._created,
            model=self._model,
            system_fingerprint=self._fingerprint,
            service_tier=self._tier,
        )

    def read(self, payload: bytes, response: chat_pb2.StreamResponse) -> None:
        """Adds the event of one chunk to `response`.

        Raises:
            GatewayError: The payload is not a JSON object, or it is an error that the provider sent in the stream.
        """
        try:
            chunk = _TEXT_CHUNK.decode(payload)
        except msgspec.MsgspecError:
            self._add(self._object(payload), response, "delta")
            return
        choice = chunk.choices[0]
        if (
            chunk.id == self._id
            and choice.index == 0
            and chunk.model == self._model
            and chunk.created == self._created
            and chunk.system_fingerprint == self._fingerprint
            and chunk.service_tier == self._tier
        ):
            response.events.add().text = choice.delta.content
            self.has_output = True
            return
        self._add(self._object(payload), response, "delta")

    def read_whole(self, body: bytes, response: chat_pb2.StreamResponse) -> None:
        """Adds the event of a whole answer to `response`.

        Raises:
            GatewayError: The body is not a JSON object, or it is an error.
        """
        self._add(self._object(body), response, "message")

    def _object(self, payload: bytes) -> dict[str, Any]:
        try:
            fields = msgspec.json.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise GatewayError(
                ErrorKind.ERROR_KIND_PROVIDER_ERROR,
                f"The provider '{self._provider}' sent something that is not a JSON object. Try again, or another model.",
                provider=self._provider,
            )
        if fields.get("error"):
            raise faults.in_band(fields["error"], self._provider)
        return fields

    def _add(self, fields: dict[str, Any], response: chat_pb2.StreamResponse, holder: str) -> None:
        """Puts a chunk's fields into an event of `response`; `holder` is where its choices hold what they say."""
        chunk = response.events.add().chunk
        chunk.SetInParent()
        fields.pop("object", None)
        self._read_info(fields, chunk)
        usage = fields.pop("usage", None)
        if isinstance(usage, dict):
            _read_usage(usage, chunk.usage)
            self.usage = chunk.usage
        elif usage is not None:
            fields["usage"] = usage
        choices = fields.pop("choices", None)
        if isinstance(choices, list):
            for position, choice in enumerate(choices):
                if isinstance(choice, dict):
                    self._read_choice(choice, chunk.choices.add(), holder, position)
        _put_extra(fields, chunk.extra)

    def _read_info(self, fields: dict[str, Any], chunk: chat_pb2.Chunk) -> None:
        identity = (
            _take(fields, "id", str) or "",
            _take(fields, "created", int) or 0,
            _take(fields, "model", str) or "",
            _take(fields, "system_fingerprint", str),
            _take(fields, "service_tier", str),
        )
        if self._id is not None and identity == (self._id, self._created, self._model, self._fingerprint, self._tier):
            return
        self._id, self._created, self._model, self._fingerprint, self._tier = identity
        info = self.info()
        if info is not None:
            chunk.info.CopyFrom(info)

    def _read_choice(self, fields: dict[str, Any], choice: chat_pb2.ChoiceDelta, holder: str, position: int) -> None:
        index = _take(fields, "index", int)
        choice.index = position if index is None else index
        reason = fields.pop("finish_reason", None)
        if reason is not None:
            if isinstance(reason, str) and reason in _FINISH_REASONS:
                choice.finish_reason = _FINISH_REASONS[reason]
            else:
                fields["finish_reason"] = reason
            self.finish_reasons.append(choice.finish_reason)
        logprobs = fields.pop("logprobs", None)
        if logprobs is not None:
            choice.logprobs = _json(logprobs)
        delta = fields.pop(holder, None)
        if isinstance(delta, dict):
            self._read_delta(delta, choice)
        elif delta is not None:
            fields[holder] = delta
        _put_extra(fields, choice.extra)

    def _read_delta(self, fields: dict[str, Any], choice: chat_pb2.ChoiceDelta) -> None:
        role = fields.pop("role", None)
        if isinstance(role, str) and role in _ROLES:
            choice.role = _ROLES[role]
        elif role is not None:
            fields["role"] = role
        text = _take(fields, "content", str)
        if text is not None:
            choice.text = text
        reasoning = _take(fields, "reasoning_content", str)
        if reasoning is None and isinstance(fields.get("reasoning"), str):
            reasoning = fields["reasoning"]  # the same by another vendor's name; under that name it stays in `extra` as well
        if reasoning is not None:
            choice.reasoning = reasoning
        refusal = _take(fields, "refusal", str)
        if refusal is not None:
            choice.refusal = refusal
        calls = fields.pop("tool_calls", None)
        if isinstance(calls, list):
            for position, call in enumerate(calls):
                if isinstance(call, dict):
                    _read_tool_call(call, choice.tool_calls.add(), position)
        elif calls is not None:
            fields["tool_calls"] = calls
        call = fields.pop("function_call", None)
        if isinstance(call, dict):
            _read_function_call(call, choice.function_call)
        elif call is not None:
            fields["function_call"] = call
        # Empty strings do not count: every stream begins with one.
        if text or reasoning or refusal or calls or call or fields:
            self.has_output = True
        _put_extra(fields, choice.delta_extra)


def _read_tool_call(fields: dict[str, Any], call: content_pb2.ToolCallDelta, position: int) -> None:
    index = _take(fields, "index", int)
    call.index = position if index is None else index  # some providers leave it out
    identifier = _take(fields, "id", str)
    if identifier is not None:
        call.id = identifier
    kind = _take(fields, "type", str)
    if kind is not None:
        call.type = kind
    function = fields.pop("function", None)
    if isinstance(function, dict):
        name = _take(function, "name", str)
        if name is not None:
            call.name = name
        arguments = function.pop("arguments", None)
        if arguments is not None:
            call.arguments = arguments if isinstance(arguments, str) else _json(arguments)
        _put_extra(function, call.function_extra)
    elif function is not None:
        fields["function"] = function
    _put_extra(fields, call.extra)


def _read_function_call(fields: dict[str, Any], call: content_pb2.FunctionCall) -> None:
    call.SetInParent()
    name = _take(fields, "name", str)
    if name is not None:
        call.name = name
    arguments = _take(fields, "arguments", str)
    if arguments is not None:
        call.arguments = arguments
    _put_extra(fields, call.extra)


def _read_usage(fields: dict[str, Any], usage: content_pb2.Usage) -> None:
    usage.SetInParent()
    usage.input_tokens = _take(fields, "prompt_tokens", int) or 0
    usage.output_tokens = _take(fields, "completion_tokens", int) or 0
    total = _take(fields, "total_tokens", int)
    usage.total_tokens = usage.input_tokens + usage.output_tokens if total is None else total
    details = fields.pop("prompt_tokens_details", None)
    if isinstance(details, dict):
        cached = _take(details, "cached_tokens", int)
        if cached is not None:
            usage.cached_input_tokens = cached
        created = _take(details, "cache_creation_tokens", int)
        if created is not None:
            usage.cache_creation_input_tokens = created
        _put_extra(details, usage.input_details_extra)
    details = fields.pop("completion_tokens_details", None)
    if isinstance(details, dict):
        reasoning = _take(details, "reasoning_tokens", int)
        if reasoning is not None:
            usage.reasoning_tokens = reasoning
        _put_extra(details, usage.output_details_extra)
    _put_extra(fields, usage.extra)


def _take(fields: dict[str, Any], name: str, kind: type[Any]) -> Any:
    """Takes a value of the type `kind` out of `fields`; a null is taken out too, and anything else stays there for `extra`."""
    value = fields.get(name)
    if value is None:
        fields.pop(name, None)
        return None
    if type(value) is not kind or (kind is int and not 0 <= value < _INTEGER_LIMITS.get(name, 2**63)):
        return None
    del fields[name]
    return value


def _put_extra(fields: dict[str, Any], extra: Any) -> None:
    for name, value in fields.items():
        extra[name] = _json(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
