"""What the core looks at in a chat before it sends it on: whether it can be sent at all, and an agent's instructions."""

from typing import Annotated, Any

import msgspec
from google.protobuf.message import Message
from msgspec import Raw
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

_JSON = msgspec.json.Decoder(Raw)
_JSON_OBJECTS = msgspec.json.Decoder(Annotated[list[dict[str, Raw]], msgspec.Meta(min_length=1)])
_MOST_CHOICES = 128
_NOT_EXTRA = frozenset({"messages", "model", "stream", "tools"})
_INSTRUCTING_NAMES = frozenset({"system", "developer"})
_INSTRUCTING = frozenset({content_pb2.ROLE_SYSTEM, content_pb2.ROLE_DEVELOPER})
_ARRAY_FIELDS = frozenset({"twinspan.v1.ChatRequest.messages_json", "twinspan.v1.ChatRequest.tools_json"})
_JSON_FIELDS = frozenset(
    {
        "twinspan.v1.Part.json",
        "twinspan.v1.Tool.parameters",
        "twinspan.v1.ToolChoice.json",
        "twinspan.v1.ResponseFormat.schema",
    }
)


class _Role(msgspec.Struct):
    role: str = ""


_ROLE = msgspec.json.Decoder(_Role)
_ITEMS = msgspec.json.Decoder(list[Raw])


def check(chat: chat_pb2.ChatRequest, *, trusted: bool) -> None:
    """Makes sure that a chat can be sent to a provider.

    Args:
        chat: What is asked.
        trusted: Whether JSON texts in it are known to be JSON. From anyone else each is read once, since a text that is not JSON
            would change what the upstream's request says.

    Raises:
        GatewayError: It cannot; the message says why, and `param` where.
    """
    if not chat.messages and not chat.HasField("messages_json"):
        raise _invalid("messages", "must hold at least one message")
    if chat.HasField("n") and not 1 <= chat.n <= _MOST_CHOICES:
        raise _invalid("n", f"must be between 1 and {_MOST_CHOICES}")
    if not trusted:
        for name in _NOT_EXTRA & chat.extra.keys():
            raise _invalid(f"extra.{name}", f"has a field of its own: set '{name}'")
        _check_json(chat, "")


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


def _check_json(message: Message, path: str) -> None:
    """Reads every JSON text in a message and the messages within it."""
    for field, value in message.ListFields():
        place = f"{path}.{field.name}" if path else field.name
        if field.message_type is None:
            if field.full_name in _ARRAY_FIELDS:
                _check_text(_JSON_OBJECTS, value, place, "a JSON array of at least one object")
            elif field.full_name in _JSON_FIELDS:
                _check_text(_JSON, value, place, "JSON")
        elif field.message_type.GetOptions().map_entry:
            for name, text in value.items():
                _check_text(_JSON, text, f"{place}.{name}", "JSON")
        elif field.is_repeated:
            for number, item in enumerate(value):
                _check_json(item, f"{place}[{number}]")
        else:
            _check_json(value, place)


def _check_text(decoder: "msgspec.json.Decoder[Any]", text: str | bytes, path: str, expected: str) -> None:
    try:
        if isinstance(text, bytes):
            text.decode()  # msgspec does not look into strings that it passes over
        decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _invalid(path, f"must be {expected}") from None


def _invalid(param: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{param}' {what}.", param=param)
