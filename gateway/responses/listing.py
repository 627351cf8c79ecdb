"""A request's input as a list of items, each whole: with an id, a type and its content in parts, as OpenAI lists it.

Pure. Above is the operation.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from msgspec import Raw

from gateway.responses.translation.reading import (
    NULL,
    Fields,
    as_it_came,
    given,
    is_string,
    json_objects,
    optional,
    string,
)

_PREFIXES: Mapping[str, str] = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}
_WITH_STATUS = frozenset({"message", "function_call", "function_call_output"})
_PART_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "output_text": {"annotations": [], "logprobs": []},
    "input_image": {"detail": "auto"},
}


def listed(raw: Raw | None, new_id: Callable[[str], str]) -> list[bytes]:
    """Returns the items of an input, as JSON texts in their order.

    Args:
        raw: The request's `input`; None if there is none.
        new_id: Returns a new identifier with a prefix, such as `msg_`, for an item that has none.

    Raises:
        GatewayError: It is neither a text nor a list of items.
    """
    if raw is None:
        return []
    if is_string(raw):
        message = {"role": "user", "content": [{"type": "input_text", "text": string(raw, "input")}]}
        return [orjson.dumps({"id": new_id("msg_"), "type": "message", "status": "completed", **message})]
    return [orjson.dumps(_item(item, f"input[{number}]", new_id)) for number, item in enumerate(json_objects(raw, "input"))]


def _item(item: Fields, param: str, new_id: Callable[[str], str]) -> dict[str, Any]:
    kind = optional(item, "type", param) or ("message" if "role" in item else "item_reference")
    written = {name: as_it_came(value) for name, value in item.items() if value != NULL}
    head: dict[str, Any] = {"id": written.get("id") or new_id(_PREFIXES.get(kind, "item_")), "type": kind}
    if kind in _WITH_STATUS:
        head["status"] = "completed"
    content = given(item, "content")
    if kind == "message" and content is not None:
        written["content"] = _content(content, f"{param}.content", optional(item, "role", param) or "user")
    return {**head, **written}


def _content(raw: Raw, param: str, role: str) -> Any:
    if is_string(raw):
        kind = "output_text" if role == "assistant" else "input_text"
        return [{"type": kind, "text": as_it_came(raw), **_PART_DEFAULTS.get(kind, {})}]
    return [_part(part, f"{param}[{number}]") for number, part in enumerate(json_objects(raw, param))]


def _part(part: Fields, param: str) -> dict[str, Any]:
    defaults = _PART_DEFAULTS.get(optional(part, "type", param) or "", {})
    return {**defaults, **{name: as_it_came(value) for name, value in part.items() if value != NULL}}
