"""Lossless reading of JSON objects into protobuf messages, field by field.

A dialect describes an object as a table from field name to reader. An object is read once, as a map of raw values; a field that the
table knows is checked and put into the message, and everything else goes, untouched, into the message's `extra`. An explicit `null`
goes there too, since the vocabulary tells absence but not null. Above are the dialects; below is nothing but `msgspec`.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

RawObject: TypeAlias = Mapping[str, Raw]
Reader: TypeAlias = Callable[[Any, Raw], None]
"""Puts one raw value into a message. Raises `InvalidFieldError` with a path that begins at the value."""

_TYPE_NAMES: Mapping[type, str] = {str: "a string", bool: "a boolean", float: "a number", int: "an integer"}


class InvalidFieldError(ValueError):
    """A field of the client's JSON has the wrong type or an impossible value.

    The path is completed while the error rises, so that a body without faults pays nothing for it.

    Attributes:
        expected: What the field must be, such as `must be a string`.
        path: Where, such as `messages[0].content`; empty for the body as a whole.
    """

    def __init__(self, expected: str, path: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.path = path

    def within(self, outer: str) -> "InvalidFieldError":
        """Puts `outer` in front of the path and returns the error."""
        self.path = outer + self.path if self.path.startswith("[") or not self.path else f"{outer}.{self.path}"
        return self

    def __str__(self) -> str:
        return f"'{self.path}' {self.expected}." if self.path else f"The body {self.expected}."


def json_text(raw: Raw) -> str:
    """Returns the JSON text of a raw value, as it came."""
    return str(raw, "utf-8")


def read_fields(target: Any, fields: RawObject, table: Mapping[str, Reader]) -> None:
    """Puts an object's fields into `target`, and those that `table` does not know into `target.extra`."""
    name = ""
    try:
        for name, raw in fields.items():
            reader = table.get(name)
            if reader is None:
                target.extra[name] = str(raw, "utf-8")
            else:
                reader(target, raw)
    except InvalidFieldError as error:
        raise error.within(name) from None


def scalar(attribute: str, kind: type, *, name: str | None = None, extra: str = "extra") -> Reader:
    """Returns a reader of one string, boolean or number.

    Args:
        attribute: The message's field that takes the value.
        kind: `str`, `bool`, `int` or `float`.
        name: The JSON field's name, if it is another than `attribute`.
        extra: The message's map that takes an explicit null.
    """
    decode = msgspec.json.Decoder(kind | None).decode
    field = name or attribute

    def read(target: Any, raw: Raw) -> None:
        try:
            value = decode(raw)
            if value is None:
                getattr(target, extra)[field] = "null"
            else:
                setattr(target, attribute, value)
        except ValueError:
            raise InvalidFieldError(f"must be {_TYPE_NAMES[kind]}") from None

    return read


def text(attribute: str) -> Reader:
    """Returns a reader that keeps a value of any type as JSON text in a string field."""

    def read(target: Any, raw: Raw) -> None:
        setattr(target, attribute, str(raw, "utf-8"))

    return read


def nested(attribute: str, table: Mapping[str, Reader]) -> Reader:
    """Returns a reader of an object into the message field `attribute`; an explicit null goes to `extra`."""

    def read(target: Any, raw: Raw) -> None:
        fields = decoded(OPTIONAL_OBJECT, raw, "an object")
        if fields is None:
            target.extra[attribute] = "null"
            return
        inner = getattr(target, attribute)
        inner.SetInParent()
        read_fields(inner, fields, table)

    return read


def flattened(table: Mapping[str, Reader], extra: str) -> Reader:
    """Returns a reader of an object whose fields go into the message that holds it; unknown ones into its map `extra`."""

    def read(target: Any, raw: Raw) -> None:
        name = ""
        try:
            for name, value in decoded(OBJECT, raw, "an object").items():
                reader = table.get(name)
                if reader is None:
                    getattr(target, extra)[name] = str(value, "utf-8")
                else:
                    reader(target, value)
        except InvalidFieldError as error:
            raise error.within(name) from None

    return read


def decoded(decoder: msgspec.json.Decoder[Any], raw: Raw, expected: str) -> Any:
    """Returns the value of `raw` as `decoder` reads it.

    Raises:
        InvalidFieldError: It is not `expected`; where the fault lies deeper, the path says where.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, expected) from None


def invalid(error: msgspec.ValidationError, expected: str) -> InvalidFieldError:
    """Returns the client's form of a decoder's error: `expected` at its top, what the decoder missed where it lies deeper."""
    wanted, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    if not place:
        return InvalidFieldError(f"must be {expected}")
    kind = wanted.partition("`")[2].partition("`")[0].removesuffix(" | null")
    names = {"str": "a string", "bool": "a boolean", "int": "an integer", "float": "a number", "object": "an object"}
    return InvalidFieldError(f"must be {names.get(kind, 'an ' + kind)}", place)


OBJECT: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])
"""Reads one object as raw values by name."""
OPTIONAL_OBJECT: msgspec.json.Decoder[dict[str, Raw] | None] = msgspec.json.Decoder(dict[str, Raw] | None)
"""Reads one object, or null."""
