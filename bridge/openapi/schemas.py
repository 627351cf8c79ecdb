"""JSON Schemas of the REST surface's objects, from the descriptors of the messages that they become.

A message's fields are the object's, by their own names; where the two differ, the proto says so (`json_form`, `message_json_form`).
Comments of the protos become descriptions. It is run when the document is made, never while serving.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from twinspan.v1 import annotations_pb2

Schema = dict[str, Any]

_CARRYING = frozenset({"openai_json", "accept_openai_json", "extra"})
_REFERENCE = re.compile(r'"#/components/schemas/(\w+)"')
_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    FieldDescriptor.CPPTYPE_INT64: {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
}


class Comments:
    """The comments of a set of protos."""

    def __init__(self, image: FileDescriptorSet) -> None:
        """Reads them from an image that was made with source info."""
        self._texts: dict[str, str] = {}
        for file in image.file:
            paths: dict[tuple[int, ...], str] = {}
            for number, message in enumerate(file.message_type):
                name = f"{file.package}.{message.name}"
                paths[4, number] = name
                paths |= {(4, number, 2, place): f"{name}.{field.name}" for place, field in enumerate(message.field)}
            for number, service in enumerate(file.service):
                name = f"{file.package}.{service.name}"
                paths[6, number] = name
                paths |= {(6, number, 2, place): f"{name}.{method.name}" for place, method in enumerate(service.method)}
            for location in file.source_code_info.location:
                found = paths.get(tuple(location.path))
                if found and location.leading_comments:
                    self._texts[found] = " ".join(location.leading_comments.split())

    def of(self, full_name: str) -> str:
        """Returns the comment of a message, field, service or method; empty if it has none."""
        return self._texts.get(full_name, "")


class Schemas:
    """The schemas that a document needs.

    Attributes:
        found: The schemas of all messages that were referred to, by name.
    """

    def __init__(self, comments: Comments, messages: Mapping[str, Descriptor]) -> None:
        """Makes an empty collection.

        Args:
            comments: Where descriptions come from.
            messages: Every message of the package, by its bare name.
        """
        self.found: dict[str, Schema] = {}
        self._comments = comments
        self._messages = messages

    def reference(self, message: Descriptor) -> Schema:
        """Returns a reference to a message's schema, which is made if it is new."""
        if message.name not in self.found:
            self.found[message.name] = {}  # it may refer to itself
            self.found[message.name] = self._schema(message)
        return {"$ref": f"#/components/schemas/{message.name}"}

    def parameter(self, field: FieldDescriptor) -> Schema:
        """Returns the schema of a field that a path or query holds."""
        return self._value(field)

    def fields(self, message: Descriptor) -> Schema:
        """Returns the schemas of a message's fields, by name."""
        schema = self._schema(message)
        properties: Schema = schema.get("properties", {})
        return properties

    def without(self, message: Descriptor, names: Collection[str]) -> Schema:
        """Returns the schema of an object that says a message's fields but those, and no others."""
        schema = self._schema(message)
        schema["properties"] = {name: value for name, value in schema["properties"].items() if name not in names}
        required = [name for name in schema.pop("required", ()) if name not in names]
        return {**schema, **({"required": required} if required else {}), "additionalProperties": False}

    def description(self, full_name: str) -> str:
        """Returns the comment of a message, field or method."""
        return self._comments.of(full_name)

    def _schema(self, message: Descriptor) -> Schema:
        said = message.GetOptions().Extensions[annotations_pb2.message_json_form]
        if said:
            schema = self._said(said)
        else:
            properties: Schema = {}
            required = []
            for field in message.fields:
                said = field.GetOptions().Extensions[annotations_pb2.json_form]
                if field.name == "extra":
                    properties |= self._said(said) if said else {}
                elif field.name not in _CARRYING and said != "false":
                    value = self._said(said) if said else self._value(field)
                    properties[field.name] = self._described(value, field.full_name)
                    if field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]:
                        required.append(field.name)
            schema = {"type": "object", "properties": properties}
            if required:
                schema["required"] = required
        return self._described(schema, message.full_name)

    def _described(self, schema: Schema, full_name: str) -> Schema:
        comment = self._comments.of(full_name)
        return {**schema, "description": comment} if comment and "description" not in schema else schema

    def _said(self, text: str) -> Schema:
        for name in _REFERENCE.findall(text):
            self.reference(self._messages[name])
        schema: Schema = json.loads(text)
        return schema

    def _value(self, field: FieldDescriptor) -> Schema:
        message = field.message_type
        if message is None:
            if field.GetOptions().Extensions[annotations_pb2.json_text]:
                return {}
            one = dict(_SCALARS.get(field.cpp_type, {"type": "integer"}))
            holder = field.containing_type
            if field.has_presence and holder is not None and holder.name.endswith("Request"):
                one["type"] = [one["type"], "null"]  # clients say null for what they leave out
        elif message.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._value(message.fields_by_name["value"])}
        else:
            one = self.reference(message)
        return {"type": "array", "items": one} if field.is_repeated else one
