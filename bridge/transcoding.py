"""Routes of plain resources, made from the `google.api.http` annotations of the services' methods.

A path's variables, and the body or the query, fill the request's fields; the response is written as JSON with the field names of
the proto, unless a dialect says otherwise. That is meant for small messages off the hot path. Where a request can carry the
client's JSON (`openai_json`), it does, and the answer comes back in the same way: neither is looked at here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson
from aiohttp import web
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.bodies import body_reader
from bridge.call import Call
from bridge.errors import BridgeError
from bridge.router import Endpoint, Handler, variables_of
from bridge.rpc import Rpc

Renderer = Callable[[Call, Any], bytes]
"""Writes a response as JSON."""

Reader = Callable[[Call], Iterable[tuple[str, str]]]
"""Gives the fields of a request that the query holds."""

_INTEGERS = frozenset(
    {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
)
_FLOATS = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})


def routes(
    service: ServiceDescriptor, stub: object, renderers: Mapping[str, Renderer], readers: Mapping[str, Reader] | None = None
) -> Iterator[Endpoint]:
    """Gives a route for every annotated method of a service.

    Args:
        service: The service.
        stub: Calls it.
        renderers: How responses are written, by message name; `as_json` writes the others.
        readers: How queries are read, by the request's message name; others are read as they are.
    """
    for method in service.methods:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        if rule.WhichOneof("pattern"):
            rpc = Rpc.of(stub, method)
            if "openai_json" in method.input_type.fields_by_name:
                handler = _carrier(method, rpc)
            elif rule.body:
                handler = _teller(method, rpc, _path_of(rule), renderers.get(method.output_type.name, _plain))
            else:
                reader = (readers or {}).get(method.input_type.name, _query)
                handler = _handler(method, rpc, reader, renderers.get(method.output_type.name, _plain))
            for bound in (rule, *rule.additional_bindings):
                yield Endpoint((bound.WhichOneof("pattern") or "").upper(), _path_of(bound), handler, (method,))


def as_json(message: Message) -> dict[str, Any]:
    """Returns a message as JSON: every field without presence, and of the others those that are set. Integers are numbers."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is None:
            fields[field.name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            fields[field.name] = dict(value)
        elif field.is_repeated:
            fields[field.name] = [as_json(item) for item in value]
        else:
            fields[field.name] = as_json(value)
    return fields


def _plain(_call: Call, message: Message) -> bytes:
    return orjson.dumps(as_json(message))


def _query(call: Call) -> Iterable[tuple[str, str]]:
    return call.http.query.items()


def _handler(method: MethodDescriptor, rpc: Rpc, read: Reader, render: Renderer) -> Handler:
    request_class = GetMessageClass(method.input_type)

    async def handle(call: Call) -> web.StreamResponse:
        request = request_class()
        for name, text in (*read(call), *call.variables.items()):
            field = method.input_type.fields_by_name.get(name)
            if field is not None:  # a query may hold what other servers of this interface know
                setattr(request, name, _value(field, name, text))
        answer = await call.unary(rpc, request)
        return call.json(render(call, answer))

    return handle


def _teller(method: MethodDescriptor, rpc: Rpc, path: str, render: Renderer) -> Handler:
    """Returns the handler of a route whose body says what the path does not."""
    request_class = GetMessageClass(method.input_type)
    read = body_reader(request_class, variables_of(path))

    async def handle(call: Call) -> web.StreamResponse:
        request = request_class()
        read(request, await call.body())
        for name, text in call.variables.items():
            setattr(request, name, text)
        return call.json(render(call, await call.unary(rpc, request)))

    return handle


def _path_of(rule: http_pb2.HttpRule) -> str:
    path: str = getattr(rule, rule.WhichOneof("pattern") or "")
    return path


def _carrier(method: MethodDescriptor, rpc: Rpc) -> Handler:
    request_class = GetMessageClass(method.input_type)

    async def handle(call: Call) -> web.StreamResponse:
        request: Any = request_class(openai_json=await call.body(), accept_openai_json=True)
        return call.json((await call.unary(rpc, request)).openai_json)

    return handle


def _value(field: FieldDescriptor, name: str, text: str) -> Any:
    try:
        if field.cpp_type in _INTEGERS:
            value = int(text)
            if -(2**31) <= value < 2**31:
                return value
        elif field.cpp_type in _FLOATS:
            return float(text)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL and text in {"true", "false"}:
            return text == "true"
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return text
    except ValueError:
        pass
    raise BridgeError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{name}' cannot be {text[:64]!r}.", param=name)
