"""Tools, and which of them to call, as chat has them. Above is `request`.

Of a request's tools, chat has functions only: what a provider runs itself cannot be had of one that has no Responses API.
"""

from typing import Any

from gateway.responses.translation.reading import (
    Fields,
    as_it_came,
    given,
    is_string,
    json_object,
    json_objects,
    lacking,
    one_of,
    optional,
    refused,
    required,
)

_RESPONSES_ONLY = frozenset({"type", "allowed_callers", "async", "defer_loading", "output_schema"})
_MODES = one_of("auto", "none", "required")
_ALLOWED_MODES = one_of("auto", "required")
_INSTEAD = "Use function tools, or ask a model of a provider that has it."


def tools_and_choice(fields: Fields) -> tuple[list[dict[str, Any]], Any]:
    """Returns a request's tools, and its choice among them, as values that orjson writes; None leaves the choice to the model.

    Raises:
        GatewayError: They are not what the Responses API says, or chat has nothing like one of them.
    """
    raw = given(fields, "tools")
    tools = [] if raw is None else [_tool(tool, f"tools[{number}]") for number, tool in enumerate(json_objects(raw, "tools"))]
    raw = given(fields, "tool_choice")
    if raw is None:
        return tools, None
    if is_string(raw):
        mode = _MODES(raw, "tool_choice")
        return tools, mode if tools or mode == "required" else None  # without tools, chat takes no choice among them
    choice = json_object(raw, "tool_choice")
    match required(choice, "type", "tool_choice"):
        case "function":
            return tools, {"type": "function", "function": {"name": required(choice, "name", "tool_choice")}}
        case "allowed_tools":
            return _allowed(choice, tools)
        case kind:
            raise lacking("tool_choice", f"the tool '{kind[:64]}'", _INSTEAD)


def _allowed(choice: Fields, tools: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Any]:
    """Returns the tools that are allowed, and the mode. Few providers know this choice; all know a shorter list of tools."""
    raw, mode = given(choice, "tools"), given(choice, "mode")
    if raw is None or mode is None:
        name = "tool_choice.tools" if raw is None else "tool_choice.mode"
        raise refused(name, f"'{name}' must be given.")
    names: set[str] = set()
    for number, tool in enumerate(json_objects(raw, "tool_choice.tools")):
        place = f"tool_choice.tools[{number}]"
        if required(tool, "type", place) != "function":
            raise lacking(place, f"the tool '{required(tool, 'type', place)[:64]}'", _INSTEAD)
        names.add(required(tool, "name", place))
    kept = [tool for tool in tools if tool["function"]["name"] in names]
    if not kept:
        raise refused("tool_choice.tools", "'tool_choice.tools' names none of 'tools'.")
    return kept, _ALLOWED_MODES(mode, "tool_choice.mode")


def _tool(tool: Fields, param: str) -> dict[str, Any]:
    kind = required(tool, "type", param)
    if kind != "function":
        raise lacking(param, f"the tool '{kind[:64]}'", _INSTEAD)
    function: dict[str, Any] = {"name": required(tool, "name", param)}
    optional(tool, "description", param)
    function |= {
        name: as_it_came(raw)
        for name, raw in tool.items()
        if name not in _RESPONSES_ONLY and name != "name" and given(tool, name) is not None
    }
    return {"type": "function", "function": function}
