"""Reads a JSON body into the request of an RPC, field by field by the names of the proto. For small messages off the hot path.

Below is `bridge.dialects.fields`, whose errors say where a body is wrong. A field that the request does not have is refused, since
what is administered must not be misunderstood.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from bridge.dialects.fields import OBJECT, InvalidFieldError, decoded, invalid

_MASK: Final = "update_mask"
_KINDS: Final[Mapping[int, tuple[type, str]]] = {
    FieldDescriptor.CPPTYPE_STRING: (str, "a string"),
    FieldDescriptor.CPPTYPE_BOOL: (bool, "a boolean"),
    FieldDescriptor.CPPTYPE_DOUBLE: (float, "a number"),
    FieldDescriptor.CPPTYPE_INT32: (int, "an integer"),
    FieldDescriptor.CPPTYPE_INT64: (int, "an integer"),
}

BodyReader = Callable[[Any, bytes], None]
"""Puts what a body says into a request. Raises `InvalidFieldError`."""


def body_reader(request: type[Message], path_variables: Collection[str]) -> BodyReader:
    """Returns a reader of bodies.

    What is null is absent. If the request has an update mask, the fields that the body names are put into it: so absence changes
    nothing, and null does.

    Args:
        request: The request's class.
        path_variables: The fields that the path gives.
    """
    fields = {field.name: _reader(field) for field in request.DESCRIPTOR.fields if _is_said(field, path_variables)}
    known = ", ".join(fields)
    has_mask = _MASK in request.DESCRIPTOR.fields_by_name

    def refuse(_message: Any, _raw: msgspec.Raw) -> None:
        raise InvalidFieldError(f"is no field of this request. Those are: {known}")

    def read(message: Any, body: bytes) -> None:
        said = _object(body)
        name = ""
        try:
            for name, raw in said.items():
                fields.get(name, refuse)(message, raw)
        except InvalidFieldError as error:
            raise error.within(name) from None
        if has_mask:
            message.update_mask.paths.extend(said)

    return read


def _is_said(field: Any, path_variables: Collection[str]) -> bool:
    return field.name != _MASK and field.name not in path_variables


def _object(body: bytes) -> Mapping[str, msgspec.Raw]:
    if not body.strip():
        return {}
    try:
        return OBJECT.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error, "a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidFieldError("is not valid JSON") from None


def _reader(field: Any) -> Callable[[Any, msgspec.Raw], None]:
    kind, expected = _KINDS[field.cpp_type]
    name = field.name
    if field.is_repeated:
        many = msgspec.json.Decoder(list[kind] | None)  # type: ignore[valid-type]  # one of the types of `_KINDS`

        def put_all(message: Any, raw: msgspec.Raw) -> None:
            getattr(message, name).extend(decoded(many, raw, "an array") or ())

        return put_all
    one = msgspec.json.Decoder(kind | None)

    def put(message: Any, raw: msgspec.Raw) -> None:
        value = decoded(one, raw, expected)
        if value is None:
            return
        try:
            setattr(message, name, value)
        except ValueError:
            raise InvalidFieldError(f"must be {expected} of at most 63 bits") from None

    return put
