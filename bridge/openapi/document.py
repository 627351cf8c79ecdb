"""The OpenAPI document, from the bridge's routes.

Source: https://spec.openapis.org/oas/v3.1.0. `python -m bridge.openapi IMAGE FILE` writes it, where IMAGE is the protos with their
comments; it is checked in, so that serving it costs nothing, and the checks fail if it is not what the protos and routes say.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from google.api import annotations_pb2 as http_annotations
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from twinspan.v1 import annotations_pb2, errors_pb2

from bridge.openapi.schemas import Comments, Schema, Schemas
from bridge.router import Endpoint

_VARIABLE = re.compile(r"\{(\w+)=\*\*\}")
_CARRIED = frozenset({"chat"})
"""Fields of a request that hold what the client's body says."""
_ERROR: Schema = {
    "type": "object",
    "description": "What went wrong. error_kind is one of the gateway's own kinds; the rest is in OpenAI's form.",
    "required": ["error", "error_kind"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        },
        "error_kind": {"enum": [name.removeprefix("ERROR_KIND_").lower() for name, value in errors_pb2.ErrorKind.items() if value]},
    },
}


def document(endpoints: Iterable[Endpoint], image: FileDescriptorSet, messages: Mapping[str, Descriptor]) -> Schema:
    """Returns the document.

    Args:
        endpoints: The bridge's routes.
        image: The protos with their comments.
        messages: Every message of the package, by its bare name.
    """
    schemas = Schemas(Comments(image), messages)
    paths: dict[str, Schema] = {}
    names: set[str] = set()
    for endpoint in endpoints:
        if not endpoint.described:
            continue
        path = _VARIABLE.sub(r"{\1}", endpoint.template)
        operation = _operation(endpoint, schemas)
        if operation.get("operationId") in names:  # another path of the same method
            operation["operationId"] += "_" + path.split("/")[1]
        names.add(operation.get("operationId", ""))
        paths.setdefault(path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Twinspan",
            "version": "1",
            "description": "The REST surface of the Twinspan AI gateway. Whatever it can do, the gRPC services can do as well.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**dict(sorted(schemas.found.items())), "Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "responses": {
                "Error": {
                    "description": "The request failed.",
                    "headers": {"x-request-id": {"schema": {"type": "string"}}},
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
            },
        },
    }


def _operation(endpoint: Endpoint, schemas: Schemas) -> Schema:
    if not endpoint.rpcs:
        return {
            "summary": endpoint.summary,
            "security": [],
            "responses": {str(status.value): {"description": status.phrase} for status in endpoint.statuses},
        }
    first = endpoint.rpcs[0]
    variables = re.findall(r"\{(\w+)", endpoint.template)
    operation: Schema = {
        "operationId": f"{first.containing_service.name}_{first.name}",
        "tags": [first.containing_service.name],
        "summary": schemas.description(first.full_name),
        "description": "RPC: " + ", ".join(f"`{rpc.full_name}`" for rpc in endpoint.rpcs),
        "parameters": _parameters(endpoint.rpcs, variables, with_query=endpoint.method == "GET", schemas=schemas),
        "responses": {"200": {"description": "OK", "content": _content(endpoint, schemas)}, "default": _REFERENCE_TO_ERROR},
    }
    if first.GetOptions().Extensions[annotations_pb2.access] == annotations_pb2.ACCESS_PUBLIC:
        operation["security"] = []
    if first.GetOptions().Extensions[http_annotations.http].body:
        schema = schemas.without(first.input_type, variables)
        operation["requestBody"] = {"required": "required" in schema, "content": {endpoint.takes: {"schema": schema}}}
    elif endpoint.method == "POST" and any(_is_said(field) and field.name not in variables for field in first.input_type.fields):
        operation["requestBody"] = {"required": True, "content": {endpoint.takes: {"schema": _body(first, schemas)}}}
    return operation


def _is_said(field: FieldDescriptor) -> bool:
    """Tells whether a field stands in requests over REST."""
    return bool(field.GetOptions().Extensions[annotations_pb2.json_form] != "false")


_REFERENCE_TO_ERROR: Schema = {"$ref": "#/components/responses/Error"}


def _parameters(rpcs: Sequence[MethodDescriptor], variables: list[str], *, with_query: bool, schemas: Schemas) -> list[Schema]:
    """Returns the parameters of a route: the fields of its methods' requests, those of the first one first."""
    parameters: dict[str, Schema] = {}
    for field in (field for rpc in rpcs for field in rpc.input_type.fields):
        if not _is_said(field):
            continue
        if field.name in variables:
            place: Schema = {"in": "path", "required": True}
        elif with_query:
            place = {"in": "query"}
        else:
            continue
        parameters.setdefault(
            field.name,
            {"name": field.name, **place, "schema": schemas.parameter(field), "description": schemas.description(field.full_name)},
        )
    if with_query and len(rpcs) > 1:
        streams = "Whether the answer comes as events."
        parameters["stream"] = {"name": "stream", "in": "query", "schema": {"type": "boolean"}, "description": streams}
    return list(parameters.values())


def _body(rpc: MethodDescriptor, schemas: Schemas) -> Schema:
    """Returns the schema of a request's body: that of a form, if the RPC takes a stream of what is said and of content."""
    fields = rpc.input_type.fields
    if rpc.client_streaming:
        said = [schemas.fields(field.message_type) for field in fields if field.message_type is not None]
        properties = {name: schema for found in said for name, schema in found.items()}
        properties |= {"file": {"type": "string", "format": "binary"}}
        return {"type": "object", "required": ["file"], "properties": properties}
    carrying = [field.message_type for field in fields if field.name in _CARRIED and field.message_type is not None]
    return schemas.reference(carrying[0] if carrying else rpc.input_type)


def _content(endpoint: Endpoint, schemas: Schemas) -> Schema:
    if endpoint.gives:
        anything = endpoint.gives == "*/*"  # JSON among it, which is no string
        return {endpoint.gives: {"schema": {} if anything else {"type": "string", "format": "binary"}}}
    forms = ((rpc, "text/event-stream" if rpc.server_streaming else "application/json") for rpc in endpoint.rpcs)
    return {form: {"schema": schemas.reference(rpc.output_type)} for rpc, form in forms}
