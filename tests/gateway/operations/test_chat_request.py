"""What the core looks at in a chat: whether it can be sent at all, the same for every caller, and an agent's instructions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.content_pb2 import Message, Part, Tool, ToolChoice
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.dialects.fields import InvalidFieldError
from bridge.dialects.openai_chat.request import ChatBody
from gateway.errors import GatewayError
from gateway.operations.chat_request import check, instruct
from gateway.providers.openai.request import encode

USER = Message(role=content_pb2.ROLE_USER, text="Hello")


def chat(*messages: Message, **fields: Any) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(**{"model": "m", "messages": messages or [USER], **fields})


def carried(messages: Any, **fields: Any) -> chat_pb2.ChatRequest:
    text = messages if isinstance(messages, bytes) else json.dumps(messages, ensure_ascii=False).encode()
    return chat_pb2.ChatRequest(model="m", messages_json=text, **fields)


def fault(asked: chat_pb2.ChatRequest, *, trusted: bool = False) -> str | None:
    """Returns where a chat is wrong; None if it is right, in which case it can be written, too."""
    try:
        check(asked, trusted=trusted)
    except GatewayError as error:
        found = error
    else:
        written(asked)
        return None
    assert found.kind == ErrorKind.ERROR_KIND_INVALID_REQUEST
    assert found.message.startswith(f"'{found.param}' ")
    return found.param


def written(asked: chat_pb2.ChatRequest) -> Any:
    return json.loads(encode(asked, model="theirs", stream=True))


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (chat(), None),
        (chat_pb2.ChatRequest(model="m"), "messages"),
        (carried([{"role": "user"}]), None),
        (chat(n=1), None),
        (chat(n=128), None),
        (chat(n=0), "n"),
        (chat(n=129), "n"),
    ],
    ids=["right", "no messages", "messages as JSON", "one choice", "128 choices", "no choice", "129 choices"],
)
def test_what_no_provider_could_answer_is_refused_from_anyone(
    asked: chat_pb2.ChatRequest, param: str | None, trusted: bool
) -> None:
    assert fault(asked, trusted=trusted) == param


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (carried(b""), "messages_json"),
        (carried(b"[]"), "messages_json"),
        (carried(b"{}"), "messages_json"),
        (carried(b'[{"role":"user"}],"model":"another"'), "messages_json"),
        (carried(b'[{"role":"user"}] x'), "messages_json"),
        (carried(b'[{"role":"user","content":"\xff"}]'), "messages_json"),
        (carried(b"[" * 100_000), "messages_json"),
        (carried([7]), "messages_json"),
        (chat(messages_json=b"[{}]"), "messages_json"),
        (chat(tools_json=b"[1]"), "tools_json"),
        (chat(tools_json=b"[]"), "tools_json"),
        (chat(tools_json=b'[{"function":{"name":"f"}}]', tools=[Tool(name="f")]), "tools_json"),
        (chat(tools=[Tool(name="f", parameters="{")]), "tools[0].parameters"),
        (chat(tools=[Tool(name="f", function_extra={"a": ""})]), "tools[0].function_extra.a"),
        (chat(tool_choice=ToolChoice(json="nope")), "tool_choice.json"),
        (chat(tool_choice=ToolChoice(mode=99)), "tool_choice.mode"),  # type: ignore[arg-type]  # a newer client may know more
        (chat(response_format=content_pb2.ResponseFormat(type="json_schema", schema="{")), "response_format.schema"),
        (chat(Message(role=content_pb2.ROLE_USER, parts=[Part(json="{")])), "messages[0].parts[0].json"),
        (chat(Message(role=content_pb2.ROLE_USER, parts=[Part(json="[]")])), "messages[0].parts[0].json"),
        (chat(Message(role=content_pb2.ROLE_USER, parts=[Part()])), "messages[0].parts[0]"),
        (chat(Message(role=content_pb2.ROLE_USER, parts=[Part(text="a")], text="b")), "messages[0]"),
        (chat(USER, Message(role=content_pb2.ROLE_USER, text="x", extra={"y": "}"})), "messages[1].extra.y"),
        (chat(extra={"top_k": "4x"}), "extra.top_k"),
        (chat(extra={"top_k": '4,"model":"another"'}), "extra.top_k"),
        (chat(extra={"x" * 1000: "}"}), "extra." + "x" * 64),
        (chat(extra={"model": '"another"'}), "extra.model"),
        (chat(extra={"messages": '[{"role":"user"}]'}), "extra.messages"),
        (chat(extra={"tools": '[{"type":"function"}]'}), "extra.tools"),
        (chat(extra={"stream": "true"}), "extra.stream"),
        (chat(extra={"stream_options": "[]"}), "extra.stream_options"),
        (chat(temperature=float("nan")), "temperature"),
        (chat(top_p=float("inf")), "top_p"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_field_that_would_change_or_break_the_upstreams_request_is_named(asked: chat_pb2.ChatRequest, param: str) -> None:
    assert fault(asked) == param


@pytest.mark.parametrize(
    "extra",
    [
        {"top_k": "4"},
        {"tools": " [ ] "},
        {"tools": "null"},
        {"stream_options": "null"},
        {"stream_options": '{"x":1}'},
        {"functions": '[{"name":"f"}]', "function_call": '"auto"'},
        {"huge": "1e999"},
    ],
    ids=json.dumps,
)
def test_extra_fields_that_change_nothing_are_welcome(extra: dict[str, str]) -> None:
    assert fault(chat(extra=extra)) is None


@pytest.mark.parametrize(
    ("fields", "role"),
    [
        ({"role": content_pb2.ROLE_ASSISTANT}, "assistant"),
        ({"role": content_pb2.ROLE_DEVELOPER}, "developer"),
        ({"extra": {"role": '"critic"'}}, "critic"),
        ({"extra": {"role": '"critic"'}, "role": content_pb2.ROLE_USER}, "user"),
    ],
    ids=["known", "newer", "unknown", "given twice"],
)
def test_a_role_is_written_once_under_its_own_name(fields: dict[str, Any], role: str) -> None:
    asked = chat(USER, Message(text="Hi", **fields))
    assert fault(asked) is None
    assert written(asked)["messages"][1] == {"role": role, "content": "Hi"}


@pytest.mark.parametrize("fields", [{}, {"role": 99}], ids=["none", "of a newer client"])
def test_a_message_that_nobody_speaks_is_refused(fields: dict[str, Any]) -> None:
    assert fault(chat(USER, Message(text="Hi", **fields))) == "messages[1].role"


def odd(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What should be so, and now and then is not."""
    return right | right | right | st.sampled_from([None, 7, "text", [], {}, [7], [{}], {"type": 7}, {"name": 7}, True])


texts = st.text(st.characters(codec="utf-8"), max_size=5)
messages = st.fixed_dictionaries(
    {"role": odd(st.sampled_from(["user", "system", "critic"]))},
    optional={name: odd(texts) for name in ("content", "name", "tool_call_id", "tool_calls", "refusal", "function_call", "x")},
)
tools = st.fixed_dictionaries({}, optional={"type": odd(texts), "function": odd(st.just({"name": "f"})), "x": texts})


@given(
    st.fixed_dictionaries(
        {"messages": st.lists(messages, min_size=1, max_size=2)},
        optional={
            "model": odd(texts),
            "tools": odd(st.lists(tools, max_size=2)),
            "stream": st.booleans() | st.none(),
            "stream_options": st.sampled_from([None, {}, {"include_usage": True}, {"include_usage": None, "x": 1}]),
            "tool_choice": odd(st.sampled_from(["auto", {"type": "function", "function": {"name": "f"}}])),
            "response_format": st.sampled_from([None, {"type": "json_schema", "json_schema": {"name": "n", "schema": None}}]),
            "stop": odd(texts | st.lists(texts, max_size=2)),
            "functions": odd(st.just([])),
            "temperature": st.none() | st.floats(0, 2),
        },
    )
)
def test_what_a_bridge_in_another_process_carries_is_taken_as_that_of_ones_own(body: dict[str, Any]) -> None:
    read = chat_pb2.ChatRequest()
    try:
        ChatBody(json.dumps(body).encode()).fill(read)
    except InvalidFieldError:
        return
    if fault(read, trusted=True) is None:
        assert fault(read) is None


# An agent's instructions.

OWN = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}, {"role": "developer", "content": "No."}]


def typed(conversation: list[dict[str, str]]) -> chat_pb2.ChatRequest:
    roles = {"system": content_pb2.ROLE_SYSTEM, "user": content_pb2.ROLE_USER, "developer": content_pb2.ROLE_DEVELOPER}
    return chat(*(Message(role=roles[message["role"]], text=message["content"]) for message in conversation))


@pytest.mark.parametrize("form", [typed, carried])
@pytest.mark.parametrize(
    ("prompt", "force", "expected"),
    [
        ("", False, OWN),
        ("", True, OWN),
        ("Be brief.", False, [{"role": "system", "content": "Be brief."}, *OWN]),
        ("Be brief.", True, [{"role": "system", "content": "Be brief."}, OWN[1]]),
        ('"] }\n🌍', False, [{"role": "system", "content": '"] }\n🌍'}, *OWN]),
    ],
)
def test_instructions_come_first_and_replace_the_clients_own_where_forced(
    form: Any, prompt: str, force: bool, expected: list[Any]
) -> None:
    asked = form(OWN)
    instruct(asked, prompt, force=force)
    assert written(asked)["messages"] == expected


def test_instructions_leave_the_conversations_text_as_it_came() -> None:
    asked = carried(b'[ {"role":"user","n":1.50,"n":1e999} ,{"content":null,"role":"critic"}]')
    instruct(asked, "Be brief.", force=True)
    assert asked.messages_json == (
        b'[{"role":"system","content":"Be brief."},{"role":"user","n":1.50,"n":1e999},{"content":null,"role":"critic"}]'
    )
