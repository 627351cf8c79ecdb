"""What a response repeats of its request. Above is the writer.

OpenAI's responses show every setting, those that the client left out with their defaults; clients read some without looking whether
they are there.
"""

from typing import Any

from orjson import Fragment

from gateway.responses.translation.reading import Fields, as_it_came, given, json_object, json_objects

_TEXT = {"format": {"type": "text"}, "verbosity": "medium"}
_REASONING = {"effort": None, "summary": None}
_TOOL = {"description": None, "parameters": None, "strict": None}
_DEFAULTS: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def settings(fields: Fields, previous_response_id: str | None = None) -> dict[str, Any]:
    """Returns a request's settings as a response shows them, as values that orjson writes.

    Args:
        fields: The request's fields, which the translation has checked.
        previous_response_id: The response that it goes on from, if it does.
    """
    shown: dict[str, Any] = {name: _shown(fields, name, default) for name, default in _DEFAULTS.items()}
    shown["previous_response_id"] = previous_response_id
    shown["text"] = _filled(fields, "text", _TEXT)
    shown["reasoning"] = _filled(fields, "reasoning", _REASONING)
    raw = given(fields, "tools")
    tools = [] if raw is None else json_objects(raw, "tools")
    shown["tools"] = [{**_TOOL, **{name: as_it_came(value) for name, value in tool.items()}} for tool in tools]
    return shown


def _shown(fields: Fields, name: str, default: Any) -> Any:
    raw = given(fields, name)
    return default if raw is None else Fragment(bytes(raw))


def _filled(fields: Fields, name: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns an object's fields, with the defaults of those that are not given."""
    raw = given(fields, name)
    if raw is None:
        return defaults
    given_fields = json_object(raw, name)
    return {
        **defaults,
        **{field: as_it_came(value) for field, value in given_fields.items() if given(given_fields, field) is not None},
    }
