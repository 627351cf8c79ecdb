"""Holds events and responses against the types of the installed openai SDK: nothing missing, and nothing that they do not know."""

import json
from typing import Any, get_args

from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

_EVENTS: dict[str, type[BaseModel]] = {
    get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(get_args(ResponseStreamEvent)[0])
}

_LENIENT = {"store", "bytes"}
"""What the SDK's types leave out: whether a response is stored, and in events how a token is spelt, which they have in parts."""


def checked_event(text: str) -> dict[str, Any]:
    """Returns an event, which must be one of the SDK's."""
    fields: dict[str, Any] = json.loads(text)
    _known(_EVENTS[fields["type"]].model_validate_json(text, strict=True))
    return fields


def checked_response(text: bytes | str) -> dict[str, Any]:
    """Returns a whole response, which must be the SDK's."""
    _known(Response.model_validate_json(text, strict=True))
    return dict(json.loads(text))


def checked_item(text: bytes) -> dict[str, Any]:
    """Returns an item of a list of inputs, which must be the SDK's."""
    _known(TypeAdapter[Any](ResponseItem).validate_json(text, strict=True))
    return dict(json.loads(text))


def _known(value: Any) -> None:
    """Makes sure that there is no field which the SDK's types do not have."""
    if isinstance(value, BaseModel):
        extra = set(value.model_extra or ()) - _LENIENT
        assert not extra, f"{type(value).__name__} has no {extra}"
        for name in type(value).model_fields:
            _known(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            _known(item)
