"""Scans the body of POST /v1/chat/completions: checks the JSON types of messages and tools, and leaves both as JSON text.

The long arrays are scanned once where every field in them is known, and twice otherwise. Strings that nobody has to look at are
passed over, not decoded. What the fields mean is for `request` to know.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from bridge.dialects.fields import OBJECT, InvalidFieldError, decoded, invalid

_Text: TypeAlias = str | UnsetType | None
_ABSENT = Raw()
_LONG_BODY_BYTES = 4096

CARRIED = (
    *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens"),
    *("metadata", "modalities", "model", "n", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key"),
    *("reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream"),
    *("stream_options", "temperature", "tool_choice", "top_k", "top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
)
"""The fields of a body, beside its messages and tools, that do not cost it a second scan. All others are carried just as well."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body whose messages and tools have the right types.

    Attributes:
        messages: The array of messages as JSON; empty if there are none.
        tools: The array of tools as JSON; empty if there are none.
        fields: All other fields, unread.
    """

    messages: bytes
    tools: bytes
    fields: dict[str, Raw]


def scan(body: bytes) -> Body:
    """Returns the parts of a body.

    Raises:
        InvalidFieldError: It is not a JSON object in UTF-8, or a field of a message or tool has the wrong type.
    """
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into strings that it passes over
        if len(body) > _LONG_BODY_BYTES:
            try:
                return _scan_once(body)
            except msgspec.ValidationError:
                pass  # a field that is not known, or a fault, which the other way tells apart
        return _scan_twice(body)
    except msgspec.ValidationError as error:
        raise invalid(error, "a JSON object") from None
    except UnicodeDecodeError as error:
        raise InvalidFieldError(f"is not valid UTF-8 (byte {error.start})") from None
    except msgspec.DecodeError as error:
        raise InvalidFieldError(f"is not valid JSON: {str(error).removeprefix('JSON is malformed: ')}") from None
    except RecursionError:
        raise InvalidFieldError("is nested too deeply") from None


def _scan_once(body: bytes) -> Body:
    frame = _FRAME.decode(body)
    _check_contents(frame.messages)
    fields = {name: raw for name in CARRIED if (raw := getattr(frame, name)) is not _ABSENT}
    if frame.tools == []:
        fields["tools"] = Raw(b"[]")
    return Body(
        _ENCODER.encode(frame.messages) if frame.messages else b"", _ENCODER.encode(frame.tools) if frame.tools else b"", fields
    )


def _scan_twice(body: bytes) -> Body:
    fields = OBJECT.decode(body)
    messages = tools = b""
    name = "messages"
    try:
        if name in fields:
            read = decoded(_MESSAGES, fields[name], "an array of messages")
            _check_contents(read or [])
            raw = fields.pop(name)
            messages = bytes(raw) if read else b""
        name = "tools"
        if name in fields and decoded(_TOOLS, fields[name], "an array of tools"):
            tools = bytes(fields.pop(name))
    except InvalidFieldError as error:
        raise error.within(name) from None
    return Body(messages, tools, fields)


def _check_contents(messages: list[Any]) -> None:
    """Makes sure that each message's content is a string, null, or an array of parts whose texts are strings."""
    number = 0
    try:
        for number, message in enumerate(messages):
            content = message.content
            if content is _ABSENT:
                continue
            match memoryview(content)[0]:
                case 0x22 | 0x6E:  # a string, or null
                    pass
                case 0x5B:  # an array
                    _check_parts(content)
                case _:
                    raise InvalidFieldError("must be a string or an array of parts")  # noqa: TRY301 (its place is added below)
    except InvalidFieldError as error:
        raise error.within("content").within(f"[{number}]") from None


def _check_parts(raw: Raw) -> None:
    for number, part in enumerate(decoded(_PARTS, raw, "an array of parts")):
        if part.text is not _ABSENT and memoryview(part.text)[0] not in b'"n':
            raise InvalidFieldError("must be a string", f"[{number}].text")


def _shape(name: str, fields: list[Any], *, strict: bool) -> Any:
    """Returns a type that has these fields, each of which may be absent; `strict` ones have no others."""
    optional = [(field[0], field[1], field[2] if len(field) > 2 else UNSET) for field in fields]
    return msgspec.defstruct(name, optional, forbid_unknown_fields=strict, omit_defaults=True, gc=False)


def _message(*, strict: bool) -> Any:
    call = _shape("FunctionCall", [("name", _Text), ("arguments", _Text)], strict=strict)
    tool_call = _shape("ToolCall", [("id", _Text), ("type", _Text), ("function", call | None | UnsetType)], strict=strict)
    return msgspec.defstruct(
        "Message",
        [
            ("role", str),
            ("content", Raw, _ABSENT),
            ("name", _Text, UNSET),
            ("tool_call_id", _Text, UNSET),
            ("tool_calls", list[tool_call] | None | UnsetType, UNSET),  # type: ignore[valid-type]  # a type made above
            ("refusal", _Text, UNSET),
            ("reasoning_content", _Text, UNSET),
            ("function_call", call | None | UnsetType, UNSET),
        ],
        forbid_unknown_fields=strict,
        omit_defaults=True,
        gc=False,
    )


def _tool(*, strict: bool) -> Any:
    function = msgspec.defstruct(
        "Function",
        [
            ("name", str),
            ("description", _Text, UNSET),
            ("parameters", Raw, _ABSENT),
            ("strict", bool | None | UnsetType, UNSET),
        ],
        forbid_unknown_fields=strict,
        omit_defaults=True,
        gc=False,
    )
    return _shape("Tool", [("type", str | UnsetType), ("function", function | None | UnsetType)], strict=strict)


class _Part(msgspec.Struct, gc=False):
    type: str
    text: Raw = _ABSENT
    image_url: dict[str, Raw] | str | None = None
    input_audio: dict[str, Raw] | None = None
    file: dict[str, Raw] | None = None


_ENCODER = msgspec.json.Encoder()
_FRAME: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct(
        "Frame",
        [
            ("messages", list[_message(strict=True)] | UnsetType, UNSET),  # type: ignore[misc]  # a type made above
            ("tools", list[_tool(strict=True)] | UnsetType, UNSET),  # type: ignore[misc]  # a type made above
            *((name, Raw, _ABSENT) for name in CARRIED),
        ],
        forbid_unknown_fields=True,
        gc=False,
    )
)
_MESSAGES: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[_message(strict=False)] | None)  # type: ignore[misc]  # a type made above
_TOOLS: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[_tool(strict=False)] | None)  # type: ignore[misc]  # a type made above
_PARTS = msgspec.json.Decoder(list[_Part])
