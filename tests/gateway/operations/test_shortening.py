"""Which part of a conversation is summarised, and what is left of it."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twinspan.v1 import chat_pb2, content_pb2

from gateway.operations.shortening import shortening_of

SYSTEM = {"role": "system", "content": "Be kind."}


def turns(count: int) -> list[dict[str, Any]]:
    return [{"role": "user" if number % 2 == 0 else "assistant", "content": f"Turn {number}"} for number in range(count)]


def as_json(messages: list[dict[str, Any]]) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(model="m", messages_json=json.dumps(messages).encode(), temperature=0.5)


def as_messages(messages: list[dict[str, Any]]) -> chat_pb2.ChatRequest:
    made = [
        content_pb2.Message(role=content_pb2.Role.Value(f"ROLE_{one['role'].upper()}"), text=one["content"]) for one in messages
    ]
    return chat_pb2.ChatRequest(model="m", messages=made, temperature=0.5)


def shortened(chat: chat_pb2.ChatRequest) -> tuple[str, list[tuple[str, str]]]:
    """Returns what is to be summarised, and the conversation afterwards."""
    shortening = shortening_of(chat)
    assert shortening is not None
    shorter = shortening.with_summary("Brief.")
    assert (shorter.model, shorter.temperature) == ("m", 0.5)
    if shorter.HasField("messages_json"):
        after = [(one["role"], one["content"]) for one in json.loads(shorter.messages_json)]
    else:
        after = [(content_pb2.Role.Name(one.role).removeprefix("ROLE_").lower(), one.text) for one in shorter.messages]
    return shortening.question.messages[1].text, after


def test_instructions_and_the_last_six_messages_stay_and_the_rest_is_summarised() -> None:
    messages = [SYSTEM, *turns(10)]
    wanted = (
        "user: Turn 0\n\nassistant: Turn 1\n\nuser: Turn 2\n\nassistant: Turn 3",
        [
            ("system", "Be kind."),
            ("user", "Summary of the earlier conversation:\n\nBrief."),
            *((one["role"], one["content"]) for one in messages[5:]),
        ],
    )
    assert shortened(as_json(messages)) == wanted
    assert shortened(as_messages(messages)) == wanted


def test_a_short_conversation_cannot_be_made_shorter() -> None:
    assert shortening_of(as_json([SYSTEM, *turns(6)])) is None
    assert shortening_of(as_messages([SYSTEM, *turns(6)])) is None


def test_what_a_tool_has_answered_stays_with_its_call() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "look", "arguments": "{}"}}]}
    answers = [{"role": "tool", "tool_call_id": "1", "content": str(number)} for number in range(7)]
    older, after = shortened(as_json([*turns(4), call, *answers]))
    assert older == "user: Turn 0\n\nassistant: Turn 1\n\nuser: Turn 2\n\nassistant: Turn 3"
    assert [role for role, _ in after] == ["user", "assistant", *["tool"] * 7]


def test_of_a_very_long_part_the_middle_is_left_out() -> None:
    older, _ = shortened(as_json([{"role": "user", "content": "a" * 60_000 + "b" * 60_000}, *turns(6)]))
    assert 48_000 <= len(older) <= 48_100
    assert (older.startswith("user: aaa"), older.endswith("bbb"), "characters left out]" in older) == (True, True, True)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]), "content": st.text(max_size=5)}
        ),
        max_size=20,
    )
)
def test_nothing_is_lost_that_is_not_summarised_and_no_tool_answers_first(messages: list[dict[str, Any]]) -> None:
    shortening = shortening_of(as_json(messages))
    others = [one for one in messages if one["role"] not in ("system", "developer")]
    if shortening is None:
        return
    after = json.loads(shortening.with_summary("Brief.").messages_json)
    instructions = [one for one in messages if one["role"] in ("system", "developer")]
    assert after[: len(instructions)] == instructions
    recent = after[len(instructions) + 1 :]
    assert recent == others[len(others) - len(recent) :]
    assert len(recent) >= 6
    assert recent[0]["role"] != "tool"
