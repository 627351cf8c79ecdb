"""What the core looks at in a chat before it sends it on: whether it can be sent at all, and an agent's instructions."""

import math
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from google.protobuf.message import Message
from msgspec import Raw
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.operations import json_text

_JSON = msgspec.json.Decoder(Raw)
_JSON_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_JSON_OBJECT_OR_NULL = msgspec.json.Decoder(dict[str, Raw] | None)
_JSON_OBJECTS = msgspec.json.Decoder(Annotated[list[dict[str, Raw]], msgspec.Meta(min_length=1)])
_MOST_CHOICES = 128
_NAME_SHOWN = 64
_NOT_EXTRA = frozenset({"messages", "model", "stream", "tools"})
_NO_TOOLS = frozenset({"[]", "null"})
_INSTRUCTING_NAMES = frozenset({"system", "developer"})
_INSTRUCTING = frozenset({content_pb2.ROLE_SYSTEM, content_pb2.ROLE_DEVELOPER})
_JSON_FIELDS: Mapping[str, tuple["msgspec.json.Decoder[Any]", str]] = {
    "twinspan.v1.ChatRequest.messages_json": (_JSON_OBJECTS, "a JSON array of at least one object"),
    "twinspan.v1.ChatRequest.tools_json": (_JSON_OBJECTS, "a JSON array of at least one object"),
    "twinspan.v1.Part.json": (_JSON_OBJECT, "a JSON object"),
    "twinspan.v1.Tool.parameters": (_JSON, "JSON"),
    "twinspan.v1.ToolChoice.json": (_JSON, "JSON"),
    "twinspan.v1.ResponseFormat.schema": (_JSON, "JSON"),
}


class _Role(msgspec.Struct):
    role: str = ""


_ROLE = msgspec.json.Decoder(_Role)
_ITEMS = msgspec.json.Decoder(list[Raw])


def check(chat: chat_pb2.ChatRequest, *, trusted: bool) -> None:
    """Makes sure that a chat can be sent to a provider.

    Args:
        chat: What is asked.
        trusted: Whether it comes from a bridge, which has looked at it. Of anyone else every value is looked at once: a text that
            should be JSON and is not, for one, would change what the upstream's request says.

    Raises:
        GatewayError: It cannot; the message says why, and `param` where.
    """
    if not chat.messages and not chat.HasField("messages_json"):
        raise _invalid("messages", "must hold at least one message")
    if chat.HasField("n") and not 1 <= chat.n <= _MOST_CHOICES:
        raise _invalid("n", f"must be between 1 and {_MOST_CHOICES}")
    if not trusted:
        _check_forms(chat)
        _check_values(chat, "")


def instruct(chat: chat_pb2.ChatRequest, system_prompt: str, *, force: bool) -> None:
    """Puts an agent's instructions in front of a chat.

    Args:
        chat: What is asked; it is changed.
        system_prompt: The instructions; nothing is done without any.
        force: Whether they replace the client's own instructions.
    """
    if not system_prompt:
        return
    if chat.HasField("messages_json"):
        instruction = msgspec.json.encode({"role": "system", "content": system_prompt})
        kept = [raw for raw in _ITEMS.decode(chat.messages_json) if not (force and _ROLE.decode(raw).role in _INSTRUCTING_NAMES)]
        chat.messages_json = b"[" + b",".join([instruction, *map(bytes, kept)]) + b"]"
        return
    messages = [message for message in chat.messages if not (force and message.role in _INSTRUCTING)]
    messages.insert(0, content_pb2.Message(role=content_pb2.ROLE_SYSTEM, text=system_prompt))
    del chat.messages[:]
    chat.messages.extend(messages)


def beginning_of(chat: chat_pb2.ChatRequest) -> bytes:
    """Returns what a conversation is known by: a digest of its instructions and of the first message that is not one of them.

    Of a conversation as JSON no more is read than that, however long it is.
    """
    digest = sha256()
    if chat.HasField("messages_json"):
        for message, text in json_text.elements(chat.messages_json):
            digest.update(text + b"\0")
            if not isinstance(message, dict) or message.get("role") not in _INSTRUCTING_NAMES:
                break
    else:
        for message in chat.messages:
            digest.update(message.SerializeToString(deterministic=True) + b"\0")
            if message.role not in _INSTRUCTING:
                break
    return digest.digest()


def _check_forms(chat: chat_pb2.ChatRequest) -> None:
    """Makes sure that everything is said once, and in its own place."""
    for name in _NOT_EXTRA & chat.extra.keys():
        if name == "tools" and "".join(chat.extra[name].split()) in _NO_TOOLS:
            continue  # the one form that `tools_json` cannot have
        raise _invalid(f"extra.{name}", f"has a field of its own: set '{name}'")
    if "stream_options" in chat.extra:
        _check_text(_JSON_OBJECT_OR_NULL, "a JSON object", chat.extra["stream_options"], "extra.stream_options")
    for name in ("messages", "tools"):
        if getattr(chat, name) and chat.HasField(f"{name}_json"):  # type: ignore[arg-type]  # a name put together
            raise _invalid(f"{name}_json", f"cannot be given together with '{name}'")
    for number, message in enumerate(chat.messages):
        if message.parts and message.HasField("text"):
            raise _invalid(f"messages[{number}]", "cannot hold both 'text' and 'parts'")
        if not message.role and "role" not in message.extra:
            raise _invalid(f"messages[{number}].role", "must be given")
        for part_number, part in enumerate(message.parts):
            if part.WhichOneof("kind") is None:
                raise _invalid(f"messages[{number}].parts[{part_number}]", "must hold something")


def _check_values(message: Message, path: str) -> None:
    """Makes sure that every value in a message, and in the messages within it, can be written as JSON."""
    for field, value in message.ListFields():
        place = f"{path}.{field.name}" if path else field.name
        if field.message_type is None:
            if field.full_name in _JSON_FIELDS:
                _check_text(*_JSON_FIELDS[field.full_name], value, place)
            elif field.enum_type is not None:
                if value not in field.enum_type.values_by_number:
                    raise _invalid(place, f"must be a {field.enum_type.name} that this version knows")
            elif isinstance(value, float) and not math.isfinite(value):
                raise _invalid(place, "must be a finite number")
        elif field.message_type.GetOptions().map_entry:
            for name, text in value.items():
                _check_text(_JSON, "JSON", text, f"{place}.{name[:_NAME_SHOWN]}")
        elif field.is_repeated:
            for number, item in enumerate(value):
                _check_values(item, f"{place}[{number}]")
        else:
            _check_values(value, place)


def _check_text(decoder: "msgspec.json.Decoder[Any]", expected: str, text: str | bytes, path: str) -> None:
    try:
        if isinstance(text, bytes):
            text.decode()  # msgspec does not look into strings that it passes over
        decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _invalid(path, f"must be {expected}") from None


def _invalid(param: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{param}' {what}.", param=param)
