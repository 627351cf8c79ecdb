"""A conversation of items as a chat's messages.

Chat wants an assistant's calls in the message that says the rest of the same turn, and the answers to them right behind it. Items
come one by one, so the assistant's message stays open for whatever else belongs to its turn. Above is `request`, below is `parts`.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from gateway.responses.translation import parts
from gateway.responses.translation.reading import (
    Fields,
    given,
    is_string,
    json_objects,
    lacking,
    optional,
    refused,
    required,
    string,
)

_ROLES: Mapping[str, str] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",  # the same to a model, and by this name known to every provider
}
_HOSTED = frozenset(
    {
        *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "computer_call"),
        *("mcp_call", "mcp_list_tools", "mcp_approval_request"),
    }
)
"""What a provider's own tools did on the way to an answer that the history holds: the answer says what came of it."""


class Conversation:
    """A chat's messages, gathered from items, oldest first.

    Attributes:
        messages: The messages, as values that orjson writes.
    """

    __slots__ = ("_keeps_reasoning", "_reasoning", "_turn", "messages")

    def __init__(self, *, keeps_reasoning: bool) -> None:
        """Makes an empty one; with `keeps_reasoning`, the assistant's messages say what it thought, as `reasoning_content`."""
        self.messages: list[dict[str, Any]] = []
        self._keeps_reasoning = keeps_reasoning
        self._reasoning: list[str] = []
        self._turn: dict[str, Any] | None = None

    def add_text(self, role: str, text: str) -> None:
        """Adds a message of one text."""
        self._close()
        self.messages.append({"role": role, "content": text})

    def add_input(self, raw: Raw, param: str) -> None:
        """Adds a request's input: a text of the user, or items.

        Raises:
            GatewayError: It is neither, or chat has nothing like one of the items.
        """
        if is_string(raw):
            self.add_text("user", string(raw, param))
            return
        for number, item in enumerate(json_objects(raw, param)):
            self.add(item, f"{param}[{number}]")

    def add_past(self, item: Fields) -> None:
        """Adds an item of an earlier request or answer.

        Raises:
            GatewayError: Chat has nothing like it.
        """
        if optional(item, "type", "previous_response_id") not in _HOSTED:
            self.add(item, "previous_response_id")

    def add(self, item: Fields, param: str) -> None:
        """Adds an item, which stands at `param` in the request.

        Raises:
            GatewayError: It is none, or chat has nothing like it.
        """
        kind = optional(item, "type", param) or ("message" if "role" in item else "item_reference" if "id" in item else None)
        match kind:
            case "message":
                self._add_message(item, param)
            case "function_call":
                self._add_call(item, param)
            case "function_call_output":
                self._add_output(item, param)
            case "reasoning":
                self._reasoning += _thoughts(item, param) if self._keeps_reasoning else ()
            case "item_reference":
                raise lacking(param, "an item that is only named", "Send the item itself, or previous_response_id.")
            case None:
                raise refused(f"{param}.type", f"'{param}.type' must be given.")
            case _:
                raise lacking(f"{param}.type", f"an item of type '{kind[:64]}'", "Leave it out, or ask another model.")

    def _add_message(self, item: Fields, param: str) -> None:
        name = required(item, "role", param)
        role = _ROLES.get(name)
        if role is None:
            raise refused(f"{param}.role", f"'{param}.role' must be one of {', '.join(_ROLES)}.")
        raw = given(item, "content")
        if raw is None:
            raise refused(f"{param}.content", f"'{param}.content' must be given.")
        if role != "assistant":
            self._close()
            self.messages.append({"role": role, "content": parts.content(raw, f"{param}.content")})
            return
        content, refusal = parts.said(raw, f"{param}.content")
        turn = self._turn
        if turn is None or self._reasoning or ("tool_calls" not in turn and turn["content"] is not None):
            turn = self._open()
        turn["content"] = content if turn["content"] is None else [*_listed(turn["content"]), *_listed(content)]
        if refusal is not None:
            turn["refusal"] = refusal

    def _add_call(self, item: Fields, param: str) -> None:
        function = {"name": required(item, "name", param), "arguments": required(item, "arguments", param)}
        call = {"id": required(item, "call_id", param), "type": "function", "function": function}
        turn = self._turn if self._turn is not None and not self._reasoning else self._open()
        turn.setdefault("tool_calls", []).append(call)

    def _add_output(self, item: Fields, param: str) -> None:
        call = required(item, "call_id", param)
        raw = given(item, "output")
        if raw is None:
            raise refused(f"{param}.output", f"'{param}.output' must be given.")
        self._close()
        self.messages.append({"role": "tool", "tool_call_id": call, "content": parts.content(raw, f"{param}.output")})

    def _open(self) -> dict[str, Any]:
        """Begins a turn of the assistant."""
        turn: dict[str, Any] = {"role": "assistant", "content": None}
        if self._reasoning:
            turn["reasoning_content"] = "".join(self._reasoning)
            self._reasoning = []
        self.messages.append(turn)
        self._turn = turn
        return turn

    def _close(self) -> None:
        """Ends the assistant's turn, and forgets what it thought without saying anything."""
        self._turn = None
        self._reasoning = []


def _thoughts(item: Fields, param: str) -> list[str]:
    """Returns a reasoning item's own words; a summary of them, or what only another provider can read, are none."""
    raw = given(item, "content")
    if raw is None:
        return []
    return [
        required(part, "text", f"{param}.content[{number}]") for number, part in enumerate(json_objects(raw, f"{param}.content"))
    ]


def _listed(content: Any) -> list[Any]:
    """Returns a content as parts."""
    if content is None:
        return []
    return content if isinstance(content, list) else [{"type": "text", "text": content}]
