"""A request as a provider with the Responses API is sent it, and the list of its input's items."""

import json
from itertools import count
from typing import Any

import orjson
import pytest
from msgspec import Raw

from gateway.responses.listing import listed
from gateway.responses.native import Instruction, asked
from tests.gateway.responses.openai_types import checked_item
from tests.gateway.responses.test_request import CALL, OUTPUT, SAID, THOUGHT, USER, raw

PAST = [orjson.dumps(item) for item in (USER, THOUGHT, {**THOUGHT, "encrypted_content": "x"}, SAID)]
WITHOUT_IDS = [
    USER,
    *({name: value for name, value in item.items() if name != "id"} for item in ({**THOUGHT, "encrypted_content": "x"}, SAID)),
]
SYSTEM = {"role": "system", "content": "I am an agent."}
GENTLE, FORCED = Instruction("I am an agent.", force=False), Instruction("I am an agent.", force=True)


def sent(fields: dict[str, Any], *arguments: Any) -> Any:
    return json.loads(orjson.dumps(asked(raw(fields), *arguments)))


def test_a_request_is_sent_as_it_came() -> None:
    assert orjson.dumps(asked({"input": Raw(b'"Hi"'), "x_new": Raw(b"[1.50, null]")})) == b'{"input":"Hi","x_new":[1.50, null]}'


def test_history_takes_the_place_of_the_previous_response() -> None:
    fields = {"input": "And?", "previous_response_id": "resp_1", "store": False}
    assert sent(fields, PAST) == {"input": [*WITHOUT_IDS, {"role": "user", "content": "And?"}], "store": False}
    assert sent(fields) == fields


def test_an_agent_speaks_first_and_is_not_repeated_to_the_client() -> None:
    fields = {"input": "Hi", "instructions": "Be brief.", "previous_response_id": "resp_1"}
    assert sent(fields, (), GENTLE) == {**fields, "input": [SYSTEM, USER]}


def test_an_agent_that_insists_is_alone() -> None:
    items = [{"role": "developer", "content": "Shout."}, USER, {"type": "message", "role": "system", "content": "Sing."}]
    assert sent({"input": items, "instructions": "Be brief."}, (), FORCED) == {"input": [SYSTEM, USER]}


@pytest.mark.parametrize(
    ("given", "types"),
    [
        ("Hi", ["message"]),
        ([USER, {"role": "assistant", "content": "Yes?"}, {"role": "developer", "content": "Be brief."}], ["message"] * 3),
        ([SAID, CALL, OUTPUT, THOUGHT], ["message", "function_call", "function_call_output", "reasoning"]),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}, {"type": "input_text", "text": "?"}]}],
            ["message"],
        ),
        ([{**SAID, "id": None, "content": [{"type": "output_text", "text": "x"}]}], ["message"]),
    ],
    ids=["a text", "short messages", "items", "parts", "an answer cut short"],
)
def test_items_are_listed_whole(given: Any, types: list[str]) -> None:
    numbers = count(1)
    items = [checked_item(text) for text in listed(Raw(json.dumps(given).encode()), lambda prefix: f"{prefix}{next(numbers)}")]
    assert [item["type"] for item in items] == types
    own = [item.get("id") for item in given] if isinstance(given, list) else [None]
    assert all(item["id"] == (was or item["id"]) for item, was in zip(items, own, strict=True))
    assert len({item["id"] for item in items}) == len(items)


def test_no_input_is_no_items() -> None:
    assert listed(None, lambda prefix: prefix) == []
