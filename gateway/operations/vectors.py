"""Answers that hold embeddings, in OpenAI's form: read, turned to the number format that was asked for, and put together.

Providers send a vector as an array of numbers, or as base64 of little-endian 32-bit floats, and not all of them send what they were
asked for. What needs no change goes through byte for byte. Nothing here knows operations or providers; it is pure.
"""

import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec
import orjson
from msgspec import Raw
from orjson import Fragment
from twinspan.v1 import embeddings_pb2

from gateway.operations import json_text

Encoding: TypeAlias = Literal["float", "base64"]

_FIELD = bytes([embeddings_pb2.Embedding.DESCRIPTOR.fields_by_name["embedding"].number << 3 | 2])
"""What stands before a packed field on the wire: its number, and that a length and bytes follow."""

_QUOTE = ord('"')
_NUMBERS = msgspec.json.Decoder(list[float])
_TEXT = msgspec.json.Decoder(str)
_ITEMS: msgspec.json.Decoder[list[json_text.Fields]] = msgspec.json.Decoder(list[json_text.Fields])
_ANYTHING = msgspec.json.Decoder(Any)


class _Item(msgspec.Struct, gc=False):
    embedding: Raw


class _Answer(msgspec.Struct, gc=False):
    data: list[_Item]
    usage: Raw = Raw()


_ANSWER = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True)
class Part:
    """One provider's answer.

    Attributes:
        body: The answer as it came.
        count: How many embeddings it holds.
        usage: Its account of what was consumed, unread; None if it gives none.
        encodings: The number formats that occur in it.
    """

    body: bytes
    count: int
    usage: Raw | None
    encodings: frozenset[Encoding]


def read(body: bytes) -> Part:
    """Looks at an answer as far as that is needed to pass it on.

    Raises:
        ValueError: It is not an object with a list of embeddings, in UTF-8.
    """
    if not body.isascii():
        body.decode()  # msgspec does not look into strings that it passes over
    try:
        answer = _ANSWER.decode(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    encodings: set[Encoding] = {"base64" if memoryview(item.embedding)[0] == _QUOTE else "float" for item in answer.data}
    return Part(body, len(answer.data), answer.usage if bytes(answer.usage) else None, frozenset(encodings))


def joined(parts: Sequence[Part], wanted: Encoding) -> bytes:
    """Returns one answer of one or several parts, whose embeddings are numbered through, with the usage summed.

    A single part with the wanted format is returned as it is. Whatever else the answer says is taken from the first part.

    Raises:
        ValueError: An embedding is in no format that is known.
    """
    first = parts[0]
    if len(parts) == 1 and first.encodings <= {wanted}:
        return first.body
    whole: dict[str, Any] = {name: Fragment(bytes(raw)) for name, raw in json_text.scan(first.body).items() if name != "data"}
    data: list[bytes] = []
    for part in parts:
        for item in _in_order(_ITEMS.decode(json_text.scan(part.body)["data"])):
            entry: dict[str, Any] = {name: Fragment(bytes(raw)) for name, raw in item.items()}
            if "index" in item or len(parts) > 1:
                entry["index"] = len(data)
            entry["embedding"] = _in_format(item["embedding"], wanted)
            data.append(orjson.dumps(entry))  # one by one, so that another thread never waits long for its turn
    if len(parts) > 1 and first.usage is not None:
        whole["usage"] = _summed(parts)
    rest = orjson.dumps(whole)[1:]
    return b'{"data":[%b]%b%b' % (b",".join(data), b"," if whole else b"", rest)


def fill(response: Any, parts: Sequence[Part]) -> None:
    """Puts one answer of one or several parts into an `EmbedResponse`, its usage excepted.

    Raises:
        ValueError: An embedding is in no format that is known.
    """
    fields = json_text.scan(parts[0].body)
    for known in ("object", "data", "usage"):
        fields.pop(known, None)
    json_text.fill(response, fields)
    for part in parts:
        for item in _in_order(_ITEMS.decode(json_text.scan(part.body)["data"])):
            embedding: embeddings_pb2.Embedding = response.data.add()
            _put(embedding, item.pop("embedding"))
            item.pop("object", None)
            json_text.fill(embedding, item)
            embedding.index = len(response.data) - 1


def _in_order(items: list[json_text.Fields]) -> list[json_text.Fields]:
    """Returns items by their own numbers, where those are a numbering; else as they came."""
    numbered = {bytes(item.get("index", b"")): item for item in items}
    try:
        return [numbered[b"%d" % number] for number in range(len(items))]
    except KeyError:
        return items


def _in_format(raw: Raw, wanted: Encoding) -> Any:
    if (memoryview(raw)[0] == _QUOTE) is (wanted == "base64"):
        return Fragment(bytes(raw))
    numbers = _numbers(raw)
    return list(numbers) if wanted == "float" else b64encode(_swapped(array("f", numbers)).tobytes()).decode()


def _numbers(raw: Raw) -> Sequence[float]:
    if memoryview(raw)[0] != _QUOTE:
        return _NUMBERS.decode(raw)
    numbers = array("f")
    numbers.frombytes(_bytes(raw))
    return _swapped(numbers)


def _put(embedding: embeddings_pb2.Embedding, raw: Raw) -> None:
    """Puts a vector into a message. One in base64 is what the field is on the wire, and goes in so, for a fiftieth of the cost."""
    if memoryview(raw)[0] != _QUOTE:
        embedding.embedding.extend(_NUMBERS.decode(raw))
        return
    packed = _bytes(raw)
    if len(packed) % 4:
        raise ValueError("not a whole number of 32-bit floats")
    embedding.MergeFromString(_FIELD + _varint(len(packed)) + packed)


def _bytes(raw: Raw) -> bytes:
    return b64decode(_TEXT.decode(raw), validate=True)


def _varint(number: int) -> bytes:
    """Returns a length as protobuf writes it: seven bits a byte, lowest first, and one more bit while more bytes follow."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _swapped(numbers: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _summed(parts: Sequence[Part]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        usage = _ANYTHING.decode(part.usage) if part.usage is not None else None
        if not isinstance(usage, dict):
            continue
        for name, value in usage.items():
            so_far = total.get(name)
            if isinstance(so_far, int) and isinstance(value, int):
                total[name] = so_far + value
            else:
                total.setdefault(name, value)
    return total
