"""Reads the answers of OpenAI-compatible providers, chunk by chunk or whole, into events.

The reader is tolerant, as providers differ: what has an unexpected name or type is kept in `extra`, as JSON text, and goes to the
client as it came. A whole answer becomes one chunk, so that everything after this adapter knows streams only.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.content_pb2 import FinishReason, Role
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.providers.openai import faults
from gateway.providers.openai.call_numbers import CallNumbers
from gateway.providers.openai.plain import read_plain

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

_Fields: TypeAlias = dict[str, Raw]
_T = TypeVar("_T")


class _TextDelta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    refusal: None = None
    reasoning_content: None = None
    tool_calls: None = None
    function_call: None = None


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
_OBJECT: msgspec.json.Decoder[_Fields | None] = msgspec.json.Decoder(_Fields | None)
_OBJECTS: msgspec.json.Decoder[list[_Fields] | None] = msgspec.json.Decoder(list[_Fields] | None)
_STRING: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)
_INTEGER: msgspec.json.Decoder[int | None] = msgspec.json.Decoder(int | None)
_NULL = Raw(b"null")
_EMPTY = frozenset({b"null", b"[]", b"{}", b'""'})
_NO_ERROR = _EMPTY | {b"false"}


class ChunkReader:
    """Reads the chunks of one answer, in order.

    Attributes:
        finish_reasons: Why choices ended, in the order in which they did.
        has_output: Whether some choice has said anything at all.
        usage: What the request has consumed, as the provider last said.
    """

    __slots__ = (
        "_calls",
        "_created",
        "_fingerprint",
        "_id",
        "_model",
        "_provider",
        "_tier",
        "finish_reasons",
        "has_output",
        "usage",
    )

    def __init__(self, provider: str) -> None:
        """Makes a reader; `provider` is the name that errors give."""
        self._provider = provider
        self._id: str | None = None
        self._created = 0
        self._model = ""
        self._fingerprint: str | None = None
        self._tier: str | None = None
        self._calls: dict[int, CallNumbers] = {}
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
        except ValueError:
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
            response.events.add().text = content = choice.delta.content
            if content:
                self.has_output = True
            return
        self._add(self._object(payload), response, "delta")

    def read_whole(self, body: bytes, response: chat_pb2.StreamResponse) -> None:
        """Adds the event of a whole answer to `response`.

        Raises:
            GatewayError: The body is not a JSON object, or it is an error.
        """
        self._add(self._object(body), response, "message")

    def carry_whole(self, body: bytes) -> chat_pb2.CompleteResponse | None:
        """Returns a whole answer as text, if that is what a client of OpenAI's dialect expects; None if it must be read."""
        answer = read_plain(body)
        if answer is None:
            return None
        self._id, self._created, self._model = answer.id, answer.created, answer.model
        self._fingerprint, self._tier = answer.system_fingerprint, answer.service_tier
        self.finish_reasons = [_FINISH_REASONS[choice.finish_reason] for choice in answer.choices]
        self.has_output = True
        response = chat_pb2.CompleteResponse(openai_json=body, info=self.info())
        if answer.usage is not UNSET:
            _read_usage(_OBJECT.decode(answer.usage) or {}, response.usage)
            self.usage = response.usage
        return response

    def _object(self, payload: bytes) -> _Fields:
        try:
            if not payload.isascii():
                payload.decode()  # msgspec does not look into strings that it passes over
            fields = _OBJECT.decode(payload)
        except (ValueError, RecursionError):
            fields = None
        if fields is None:
            raise GatewayError(
                ErrorKind.ERROR_KIND_PROVIDER_ERROR,
                f"The provider '{self._provider}' sent something that is not a JSON object. Try again, or another model.",
                provider=self._provider,
            )
        error = bytes(fields.get("error", _NULL))
        if error not in _NO_ERROR:
            raise faults.in_band(error, self._provider)
        return fields

    def _add(self, fields: _Fields, response: chat_pb2.StreamResponse, holder: str) -> None:
        """Puts a chunk's fields into an event of `response`; `holder` is where its choices hold what they say."""
        chunk = response.events.add().chunk
        chunk.SetInParent()
        fields.pop("object", None)
        self._read_info(fields, chunk)
        usage = _take(fields, "usage", _OBJECT)
        if usage is not None:
            _read_usage(usage, chunk.usage)
            self.usage = chunk.usage
        choices = _take(fields, "choices", _OBJECTS)
        for position, choice in enumerate(choices or ()):
            self._read_choice(choice, chunk.choices.add(), holder, position)
        _put_extra(fields, chunk.extra)

    def _read_info(self, fields: _Fields, chunk: chat_pb2.Chunk) -> None:
        identity = (
            _take(fields, "id", _STRING) or "",
            _take_integer(fields, "created") or 0,
            _take(fields, "model", _STRING) or "",
            _take(fields, "system_fingerprint", _STRING),
            _take(fields, "service_tier", _STRING),
        )
        if self._id is not None and identity == (self._id, self._created, self._model, self._fingerprint, self._tier):
            return
        self._id, self._created, self._model, self._fingerprint, self._tier = identity
        info = self.info()
        if info is not None:
            chunk.info.CopyFrom(info)

    def _read_choice(self, fields: _Fields, choice: chat_pb2.ChoiceDelta, holder: str, position: int) -> None:
        index = _take_integer(fields, "index", 2**31)
        choice.index = position if index is None else index
        self._read_finish_reason(fields, choice)
        logprobs = fields.pop("logprobs", _NULL)
        if logprobs != _NULL:
            choice.logprobs = str(logprobs, "utf-8")
        delta = _take(fields, holder, _OBJECT)
        if delta is not None:
            self._read_delta(delta, choice, whole=holder == "message")
        _put_extra(fields, choice.extra)

    def _read_finish_reason(self, fields: _Fields, choice: chat_pb2.ChoiceDelta) -> None:
        raw = fields.get("finish_reason", _NULL)
        if bytes(raw) in _EMPTY:  # some providers send an empty string until there is a reason
            fields.pop("finish_reason", None)
            return
        reason = _FINISH_REASONS.get(_string(raw) or "")
        if reason is not None:
            del fields["finish_reason"]
            choice.finish_reason = reason
        self.finish_reasons.append(choice.finish_reason)

    def _read_delta(self, fields: _Fields, choice: chat_pb2.ChoiceDelta, *, whole: bool) -> None:
        said = False
        _read_role(fields, choice)
        text = _take(fields, "content", _STRING)
        if text is not None:
            choice.text = text
        reasoning = _take(fields, "reasoning_content", _STRING)
        if reasoning is None and "reasoning" in fields:
            reasoning = _string(fields["reasoning"])  # the same by another vendor's name, under which it stays in `extra` as well
        if reasoning is not None:
            choice.reasoning = reasoning
        refusal = _take(fields, "refusal", _STRING)
        if refusal is not None:
            choice.refusal = refusal
        tool_calls = _take(fields, "tool_calls", _OBJECTS)
        for position, tool_call in enumerate(tool_calls or ()):
            said = True
            call = choice.tool_calls.add()
            given = _read_tool_call(tool_call, call)
            call.index = self._call_number(given, choice.index, call) if not whole else position if given is None else given
        function_call = _take(fields, "function_call", _OBJECT)
        if function_call is not None:
            said = True
            _read_function_call(function_call, choice.function_call)
        # Empty values do not count: nearly every stream begins with some.
        if said or text or reasoning or refusal or any(bytes(raw) not in _EMPTY for raw in fields.values()):
            self.has_output = True
        _put_extra(fields, choice.delta_extra)

    def _call_number(self, given: int | None, choice: int, call: content_pb2.ToolCallDelta) -> int:
        numbers = self._calls.get(choice)
        if numbers is None:
            numbers = self._calls[choice] = CallNumbers()
        return numbers.number(given, call.id, call.name)


def _read_role(fields: _Fields, choice: chat_pb2.ChoiceDelta) -> None:
    raw = fields.get("role")
    if raw is None:
        return
    role = _ROLES.get(_string(raw) or "")
    if role is not None:
        choice.role = role
    if role is not None or raw == _NULL:
        del fields["role"]


def _read_tool_call(fields: _Fields, call: content_pb2.ToolCallDelta) -> int | None:
    """Reads all of a piece of a call but its number, which is returned as it was given."""
    index = _take_integer(fields, "index", 2**31)
    identifier = _take(fields, "id", _STRING)
    if identifier is not None:
        call.id = identifier
    kind = _take(fields, "type", _STRING)
    if kind is not None:
        call.type = kind
    function = _take(fields, "function", _OBJECT)
    if function is not None:
        name = _take(function, "name", _STRING)
        if name is not None:
            call.name = name
        arguments = _take(function, "arguments", _STRING)
        if arguments is None and "arguments" in function:
            arguments = str(function.pop("arguments"), "utf-8")  # some providers give the arguments themselves, and no text of them
        if arguments is not None:
            call.arguments = arguments
        _put_extra(function, call.function_extra)
    _put_extra(fields, call.extra)
    return index


def _read_function_call(fields: _Fields, call: content_pb2.FunctionCall) -> None:
    call.SetInParent()
    name = _take(fields, "name", _STRING)
    if name is not None:
        call.name = name
    arguments = _take(fields, "arguments", _STRING)
    if arguments is not None:
        call.arguments = arguments
    _put_extra(fields, call.extra)


def _read_usage(fields: _Fields, usage: content_pb2.Usage) -> None:
    usage.SetInParent()
    usage.input_tokens = _take_integer(fields, "prompt_tokens") or 0
    usage.output_tokens = _take_integer(fields, "completion_tokens") or 0
    total = _take_integer(fields, "total_tokens")
    usage.total_tokens = usage.input_tokens + usage.output_tokens if total is None else total
    details = _take(fields, "prompt_tokens_details", _OBJECT)
    if details is not None:
        cached = _take_integer(details, "cached_tokens")
        if cached is not None:
            usage.cached_input_tokens = cached
        created = _take_integer(details, "cache_creation_tokens")
        if created is not None:
            usage.cache_creation_input_tokens = created
        _put_extra(details, usage.input_details_extra)
    details = _take(fields, "completion_tokens_details", _OBJECT)
    if details is not None:
        reasoning = _take_integer(details, "reasoning_tokens")
        if reasoning is not None:
            usage.reasoning_tokens = reasoning
        _put_extra(details, usage.output_details_extra)
    _put_extra(fields, usage.extra)


def _take(fields: _Fields, name: str, decoder: "msgspec.json.Decoder[_T | None]") -> _T | None:
    """Takes a value that `decoder` reads out of `fields`; a null is taken out too, and anything else stays there for `extra`."""
    raw = fields.pop(name, None)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except ValueError:
        fields[name] = raw
        return None


def _take_integer(fields: _Fields, name: str, limit: int = 2**63) -> int | None:
    """Takes an integer from 0 and below `limit` out of `fields`, as `_take` does."""
    raw = fields.pop(name, None)
    if raw is None:
        return None
    try:
        value = _INTEGER.decode(raw)
        if value is None or 0 <= value < limit:
            return value
    except ValueError:
        pass
    fields[name] = raw
    return None


def _string(raw: Raw) -> str | None:
    """Returns the string that a value is; None if it is something else."""
    try:
        return _STRING.decode(raw)
    except ValueError:
        return None


def _put_extra(fields: _Fields, extra: Any) -> None:
    for name, raw in fields.items():
        extra[name] = str(raw, "utf-8")
