"""A request of the Responses API as a provider is sent it that has that API: as it came, with what the gateway adds to its input.

An agent's instructions become the input's first item and not `instructions`, which a provider repeats in its answer to the client.
Pure. Above is the operation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from gateway.responses.translation.reading import Fields, as_it_came, given, is_string, json_objects

_ITEM = msgspec.json.Decoder(dict[str, Raw])
_INSTRUCTING = frozenset({b'"system"', b'"developer"'})
_REASONING = Raw(b'"reasoning"')
_LEFT_OUT = frozenset({"input", "previous_response_id"})


@dataclass(frozen=True, slots=True)
class Instruction:
    """What an agent says to what is asked.

    Attributes:
        text: The agent's instructions.
        force: Whether they replace the client's own.
    """

    text: str
    force: bool


def asked(fields: Fields, history: Sequence[bytes] = (), instruction: Instruction | None = None) -> dict[str, Any]:
    """Returns the fields that a provider is sent, as values that orjson writes.

    Args:
        fields: The request's fields, unread.
        history: The items of earlier requests and answers, as JSON texts, oldest first. They take the place of
            `previous_response_id`.
        instruction: What an agent adds.

    Raises:
        GatewayError: The input is neither a text nor a list of items.
    """
    if not history and instruction is None:
        return {name: as_it_came(raw) for name, raw in fields.items()}
    force = instruction is not None and instruction.force
    written: dict[str, Any] = {name: as_it_came(raw) for name, raw in fields.items() if name not in _LEFT_OUT}
    if not history and "previous_response_id" in fields:
        written["previous_response_id"] = as_it_came(fields["previous_response_id"])
    if force:
        written.pop("instructions", None)
    own: list[dict[str, Any]] = [] if instruction is None else [{"role": "system", "content": instruction.text}]
    items = [item for item in (*_past(history), *_items(given(fields, "input"))) if not (force and _instructs(item))]
    written["input"] = own + [{name: as_it_came(raw) for name, raw in item.items()} for item in items]
    return written


def _past(history: Sequence[bytes]) -> Iterator[Fields]:
    """Gives the items of the past without their ids, which mean nothing to a provider that has not made them."""
    for text in history:
        item = _ITEM.decode(text)
        if item.get("type") == _REASONING and given(item, "encrypted_content") is None:
            continue  # reasoning is known by its id, or by what only the provider can read
        item.pop("id", None)
        yield item


def _items(raw: Raw | None) -> list[Fields]:
    if raw is None:
        return []
    return [{"role": Raw(b'"user"'), "content": raw}] if is_string(raw) else json_objects(raw, "input")


def _instructs(item: Fields) -> bool:
    return item.get("role") is not None and bytes(item["role"]) in _INSTRUCTING
