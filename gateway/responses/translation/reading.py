"""Reads the fields of a request, each with the error that names it. What is not looked at stays JSON text.

Above are the translation's other parts; nothing is below.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Raw
from orjson import Fragment
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

Fields: TypeAlias = dict[str, Raw]
Reader: TypeAlias = Callable[[Raw, str], Any]
"""Reads a value; its second argument is the value's place, for the error."""

_T = TypeVar("_T")

NULL = Raw(b"null")


def refused(param: str, message: str) -> GatewayError:
    """Returns the error of a request that cannot be sent; `param` is the field at fault."""
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, message, param=param)


def lacking(param: str, what: str, instead: str) -> GatewayError:
    """Returns the error of a request for something that only a provider with the Responses API has.

    Args:
        param: The field at fault.
        what: What is asked for.
        instead: What the client can do.
    """
    message = f"The provider of this model has chat and no Responses API, so {what} cannot be had. {instead}"
    return refused(param, message)


def _reader(kind: type[_T], expected: str) -> Callable[[Raw, str], _T]:
    decoder = msgspec.json.Decoder(kind)

    def read(raw: Raw, param: str) -> _T:
        try:
            return decoder.decode(raw)
        except (ValueError, RecursionError):
            raise refused(param, f"'{param}' must be {expected}.") from None

    return read


string = _reader(str, "a string")
boolean = _reader(bool, "a boolean")
integer = _reader(int, "an integer")
number = _reader(float, "a number")
strings = _reader(list[str], "an array of strings")
json_object: Callable[[Raw, str], Fields] = _reader(dict[str, Raw], "an object")
json_objects: Callable[[Raw, str], list[Fields]] = _reader(list[dict[str, Raw]], "an array of objects")
string_map = _reader(dict[str, str], "an object of strings")


def one_of(*names: str) -> Reader:
    """Returns a reader of a string that must be one of these."""

    def read(raw: Raw, param: str) -> str:
        value = string(raw, param)
        if value not in names:
            raise refused(param, f"'{param}' must be one of {', '.join(names)}.")
        return value

    return read


def given(fields: Fields, name: str) -> Raw | None:
    """Returns a field's value; None if it is absent or null, which mean the same in a request."""
    raw = fields.get(name)
    return None if raw is None or raw == NULL else raw


def optional(fields: Fields, name: str, param: str) -> str | None:
    """Returns a field that must be a string if it is given."""
    raw = given(fields, name)
    return None if raw is None else string(raw, f"{param}.{name}")


def required(fields: Fields, name: str, param: str) -> str:
    """Returns a field that must be given, as a string."""
    value = optional(fields, name, param)
    if value is None:
        raise refused(f"{param}.{name}", f"'{param}.{name}' must be given.")
    return value


def is_string(raw: Raw) -> bool:
    """Tells whether a value is a string."""
    return memoryview(raw)[0] == 0x22


def as_it_came(raw: Raw) -> Fragment:
    """Returns a value for orjson to write as it came."""
    return Fragment(bytes(raw))
