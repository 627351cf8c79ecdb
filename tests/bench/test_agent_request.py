import json
from typing import Any

from bench.agent_request import REQUEST_BYTES, bodies


def test_it_is_a_long_conversation_with_tools_and_what_they_returned() -> None:
    body = bodies("bench-unary", variants=1)[0]
    request: dict[str, Any] = json.loads(body)

    assert len(body) == REQUEST_BYTES == 200_000
    assert len(request["messages"]) == 120
    assert len(request["tools"]) == 20
    called = [call["id"] for message in request["messages"] for call in message.get("tool_calls", [])]
    answered = [message["tool_call_id"] for message in request["messages"] if message["role"] == "tool"]
    assert called == answered
    assert len(called) == 59


def test_a_dozen_secrets_are_planted_in_what_tools_returned() -> None:
    request: dict[str, Any] = json.loads(bodies("bench-unary", variants=1)[0])

    planted = [message for message in request["messages"] if "# found in the environment: " in message["content"]]
    assert len(planted) == 12
    assert {message["role"] for message in planted} == {"tool"}


def test_every_run_sends_the_same_turns_which_differ_in_their_last_message() -> None:
    turns = [json.loads(body) for body in bodies("bench-unary", variants=3)]

    assert bodies("bench-unary", variants=3) == bodies("bench-unary", variants=3)
    last = [turn["messages"].pop()["content"] for turn in turns]
    assert len(set(last)) == 3
    assert turns[0] == turns[1] == turns[2]
