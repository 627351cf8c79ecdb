"""Messages of the vocabulary as JSON objects in OpenAI's form, field by field, as their descriptors say.

It serves the operations whose messages have the names and types of OpenAI's fields. What a message has no field for stands in its
map `extra`, and a string that is marked `json_text` is JSON as it is. It is no match for the chat's own reader and writer in speed,
and is used where callers speak typed messages; the bridge carries text, which is only checked. Nothing here knows operations or
providers.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from json import JSONDecoder
from typing import Any, TypeAlias

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from msgspec import Raw
from orjson import Fragment
from twinspan.v1 import annotations_pb2

Fields: TypeAlias = dict[str, Raw]

_CARRYING = frozenset({"openai_json", "accept_openai_json"})
_EXTRA = "extra"
_ONE_VALUE = JSONDecoder()
_OPENING = re.compile(r"\s*\[\s*")
_BETWEEN = re.compile(r"\s*,\s*")
_NULL = Raw(b"null")
_OBJECT: msgspec.json.Decoder[Fields] = msgspec.json.Decoder(Fields)
_JSON = msgspec.json.Decoder(Raw)
_OBJECTS: msgspec.json.Decoder[list[Fields] | None] = msgspec.json.Decoder(list[Fields] | None)
_TYPES: Mapping[int, Any] = {
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
    FieldDescriptor.CPPTYPE_FLOAT: float,
    FieldDescriptor.CPPTYPE_INT32: int,
    FieldDescriptor.CPPTYPE_INT64: int,
    FieldDescriptor.CPPTYPE_UINT32: int,
    FieldDescriptor.CPPTYPE_UINT64: int,
}


class UnwritableError(ValueError):
    """A field that has no form in JSON.

    Attributes:
        path: Where it is.
        expected: What it must be, such as `a finite number`.
    """

    def __init__(self, path: str, expected: str) -> None:
        super().__init__(f"'{path}' must be {expected}")
        self.path = path
        self.expected = expected


def elements(text: bytes) -> Iterator[tuple[Any, bytes]]:
    """Gives each element of a JSON array, as a value and as text, one by one: what is not asked for is not read.

    It ends where the array does, and where it is none.
    """
    array = text.decode("utf-8", "surrogateescape")
    opening = _OPENING.match(array)
    position = opening.end() if opening is not None else len(array)
    while position < len(array) and array[position] != "]":
        try:
            value, end = _ONE_VALUE.raw_decode(array, position)
        except (ValueError, RecursionError):
            return
        yield value, array[position:end].encode("utf-8", "surrogateescape")
        between = _BETWEEN.match(array, end)
        position = between.end() if between is not None else len(array)


def scan(text: bytes) -> Fields:
    """Returns the fields of a JSON object, unread.

    Raises:
        ValueError: The text is not a JSON object in UTF-8.
    """
    if not text.isascii():
        text.decode()  # msgspec does not look into strings that it passes over
    try:
        return _OBJECT.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def fields_of(message: Message, path: str = "") -> dict[str, Any]:
    """Returns a message's fields as values that orjson writes; those that are not set are left out.

    Raises:
        UnwritableError: A number is not finite, or a text that should be JSON is not.
    """
    fields: dict[str, Any] = {}
    extra: Mapping[str, str] = {}
    for field, value in message.ListFields():
        name = field.name
        place = f"{path}.{name}" if path else name
        if name == _EXTRA:
            extra = value
        elif name not in _CARRYING:
            fields[name] = _written(field, value, place)
    for name, text in extra.items():
        fields.setdefault(name, _fragment(text, f"{path}.{_EXTRA}.{name}" if path else f"{_EXTRA}.{name}"))
    return fields


def fill(message: Message, fields: Fields) -> None:
    """Puts a JSON object's fields into a message. Nulls are left out; what does not fit goes into `extra` as it came."""
    readers = _readers(message.DESCRIPTOR)
    for name, raw in fields.items():
        reader = readers.get(name)
        if raw == _NULL:
            continue
        try:
            if reader is not None:
                reader(message, raw)
                continue
        except (ValueError, TypeError):
            message.ClearField(name)
        extra: Any = getattr(message, _EXTRA, None)
        if extra is not None:
            extra[name] = str(raw, "utf-8")


def _written(field: FieldDescriptor, value: Any, place: str) -> Any:
    if field.message_type is None:
        if field.GetOptions().Extensions[annotations_pb2.json_text]:
            return [_fragment(text, place) for text in value] if field.is_repeated else _fragment(value, place)
        if field.is_repeated:
            value = list(value)
        if _TYPES.get(field.cpp_type) is float and not all(map(math.isfinite, value if field.is_repeated else (value,))):
            raise UnwritableError(place, "a finite number")
        return value
    if field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [fields_of(item, f"{place}[{number}]") for number, item in enumerate(value)]
    return fields_of(value, place)


def _fragment(text: str, place: str) -> Fragment:
    try:
        _JSON.decode(text)  # one that is not JSON would change what the text around it says
    except (ValueError, RecursionError):
        raise UnwritableError(place, "JSON") from None
    return Fragment(text)


@cache
def _readers(descriptor: Descriptor) -> Mapping[str, Callable[[Any, Raw], None]]:
    return {field.name: _reader(field) for field in descriptor.fields if field.name not in _CARRYING | {_EXTRA}}


def _reader(field: FieldDescriptor) -> Callable[[Any, Raw], None]:
    name = field.name
    if field.message_type is None:
        return _scalar_reader(field)
    if field.message_type.GetOptions().map_entry:
        values = _TYPES[field.message_type.fields_by_name["value"].cpp_type]
        decode = msgspec.json.Decoder(dict[str, values]).decode  # type: ignore[valid-type]  # a type made at run time
        return lambda message, raw: getattr(message, name).update(decode(raw))
    if field.is_repeated:

        def read_all(message: Any, raw: Raw) -> None:
            for item in _OBJECTS.decode(raw) or ():
                fill(getattr(message, name).add(), item)

        return read_all

    def read(message: Any, raw: Raw) -> None:
        inner = getattr(message, name)
        inner.SetInParent()
        fill(inner, _OBJECT.decode(raw))

    return read


def _scalar_reader(field: FieldDescriptor) -> Callable[[Any, Raw], None]:
    name = field.name
    if field.GetOptions().Extensions[annotations_pb2.json_text]:
        return lambda message, raw: setattr(message, name, str(raw, "utf-8"))
    kind = _TYPES[field.cpp_type]
    if field.is_repeated:
        decode_all = msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type]  # a type made at run time
        return lambda message, raw: getattr(message, name).extend(decode_all(raw))
    decode = msgspec.json.Decoder(kind).decode
    return lambda message, raw: setattr(message, name, decode(raw))
