"""A request of the Responses API as a chat: what becomes of each field and item, and what is refused."""

import json
from typing import Any

import hypothesis
import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.operations.chat_request import check
from gateway.providers.openai.request import encode
from gateway.responses.translation.request import translate
from gateway.responses.translation.settings import settings

TOOL = {"type": "function", "name": "f", "description": "F.", "parameters": {"type": "object", "x": 1.50}, "strict": True}
CHAT_TOOL = {"type": "function", "function": {name: value for name, value in TOOL.items() if name != "type"}}
OTHER = {"type": "function", "name": "g"}
CHAT_OTHER = {"type": "function", "function": {"name": "g"}}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "42"}
TOOL_MESSAGE = {"role": "tool", "tool_call_id": "c1", "content": "42"}
SAID = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "I see.", "annotations": [], "logprobs": []}],
}
THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
USER = {"role": "user", "content": "Hi"}


def raw(fields: dict[str, Any]) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}


def sent(fields: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Returns the body that a provider is sent for a request, the model left out."""
    chat = translate(raw(fields), model="m", **options)
    check(chat, trusted=False)
    settings(raw(fields))
    body: dict[str, Any] = json.loads(encode(chat, model="m", stream=False))
    del body["model"]
    return body


def messages(*items: Any, **options: Any) -> Any:
    return sent({"input": list(items)}, **options)["messages"]


def fault(fields: dict[str, Any]) -> tuple[str | None, str]:
    with pytest.raises(GatewayError) as refused:
        translate(raw(fields), model="m")
    assert refused.value.kind == ErrorKind.ERROR_KIND_INVALID_REQUEST
    return refused.value.param, refused.value.message


def test_a_text_is_what_the_user_says_and_instructions_come_first() -> None:
    assert sent({"instructions": "Be brief.", "input": "Hi"}) == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    }


def test_roles_are_those_that_every_provider_knows() -> None:
    items = [{"role": role, "content": "x", "type": "message"} for role in ("system", "developer", "user", "assistant")]
    assert [message["role"] for message in messages(*items)] == ["system", "system", "user", "assistant"]


def test_parts_become_the_parts_of_a_chat() -> None:
    parts = [
        {"type": "input_text", "text": "Look:", "x_new": [1]},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
        {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "original"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]
    assert messages({"role": "user", "content": parts}) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look:", "x_new": [1]},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "high"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            ],
        }
    ]


def test_one_text_is_plain_content_and_so_are_an_assistants_texts() -> None:
    one = {"type": "input_text", "text": "a"}
    texts = [{"type": "output_text", "text": text, "annotations": []} for text in "bc"]
    assert messages({"role": "user", "content": [one]}, {"role": "assistant", "content": texts}) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "bc"},
    ]


def test_a_refusal_is_told_again_as_one() -> None:
    refusal = {"type": "refusal", "refusal": "No."}
    assert messages({"role": "assistant", "content": [refusal]}) == [{"role": "assistant", "content": None, "refusal": "No."}]


def test_calls_stand_in_the_message_of_their_turn_with_the_answers_behind_it() -> None:
    second = {**CALL, "call_id": "c2"}
    answers = [OUTPUT, {**OUTPUT, "call_id": "c2", "output": [{"type": "input_text", "text": "43"}]}]
    turn = {"role": "assistant", "content": "I see.", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]}
    tools = [TOOL_MESSAGE, {"role": "tool", "tool_call_id": "c2", "content": "43"}]
    for items in ([SAID, CALL, second], [CALL, SAID, second], [CALL, second, SAID]):
        assert messages(USER, *items, *answers) == [USER, turn, *tools]


def test_text_around_a_call_stays_in_one_turn() -> None:
    text = {"type": "text", "text": "I see."}
    assert messages(USER, SAID, CALL, SAID, OUTPUT)[1:] == [
        {"role": "assistant", "content": [text, text], "tool_calls": [CHAT_CALL]},
        TOOL_MESSAGE,
    ]


def test_turns_that_are_apart_stay_apart() -> None:
    alone = {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}
    assert messages(USER, CALL, OUTPUT, CALL, OUTPUT) == [USER, alone, TOOL_MESSAGE, alone, TOOL_MESSAGE]
    assert messages(SAID, SAID) == [{"role": "assistant", "content": "I see."}] * 2


def test_reasoning_goes_with_its_turn_to_a_provider_that_reasons_and_nowhere_else() -> None:
    """Lesson 20: what a model thought is not lost where it can be told again."""
    turn = {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}
    assert messages(THOUGHT, CALL, OUTPUT) == [turn, TOOL_MESSAGE]
    assert messages(THOUGHT, CALL, OUTPUT, keeps_reasoning=True) == [{**turn, "reasoning_content": "Hm."}, TOOL_MESSAGE]
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "It thought."}], "encrypted_content": "x"}
    assert messages(summary, SAID, keeps_reasoning=True) == [{"role": "assistant", "content": "I see."}]
    assert messages(THOUGHT, USER, keeps_reasoning=True) == [USER]


def test_history_stands_between_the_instructions_and_the_input() -> None:
    past = [USER, {"type": "web_search_call", "id": "ws_1", "status": "completed"}, SAID]
    body = sent(
        {"instructions": "Be brief.", "input": "And?", "previous_response_id": "resp_1"},
        history=[orjson.dumps(item) for item in past],
    )
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "Hi", "I see.", "And?"]


def test_settings_get_the_names_that_chat_has_for_them() -> None:
    fields = {
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 1,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"verbosity": "low", "format": {"type": "text"}},
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
        "top_logprobs": 2,
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
    }
    others = {"store": True, "metadata": {"a": "b"}, "truncation": "auto", "max_tool_calls": 3, "background": False, "stream": True}
    body = sent({"input": "Hi", **fields, **others, "stream_options": {"include_obfuscation": False}})
    del body["messages"]
    assert body == {
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 1.0,
        "reasoning_effort": "low",
        "verbosity": "low",
        "logprobs": True,
        "top_logprobs": 2,
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
    }


def test_what_nobody_knows_goes_along_as_it_came() -> None:
    body = translate({**raw({"input": "Hi", "n": 1}), "x_new": Raw(b'{"a": 1.50}')}, model="m").extra
    assert dict(body) == {"n": "1", "x_new": '{"a": 1.50}'}


def test_nulls_are_absences() -> None:
    names = ("instructions", "tools", "tool_choice", "text", "reasoning", "temperature", "include", "metadata", "user", "x_new")
    assert sent({"input": "Hi", **dict.fromkeys(names)}) == {"messages": [USER]}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {
                "type": "json_schema",
                "name": "s",
                "schema": {"type": "object", "x": 1.50},
                "strict": True,
                "description": "S.",
                "x": 1,
            },
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "s",
                    "description": "S.",
                    "schema": {"type": "object", "x": 1.5},
                    "strict": True,
                    "x": 1,
                },
            },
        ),
    ],
    ids=["object", "schema"],
)
def test_the_texts_format_is_the_response_format(form: Any, expected: Any) -> None:
    assert sent({"input": "Hi", "text": {"format": form}})["response_format"] == expected


def test_tools_are_nested_as_chat_has_them() -> None:
    body = sent(
        {"input": "Hi", "tools": [TOOL, {**OTHER, "defer_loading": True, "parameters": None}], "parallel_tool_calls": False}
    )
    assert (body["tools"], body["parallel_tool_calls"]) == ([CHAT_TOOL, CHAT_OTHER], False)


@pytest.mark.parametrize(
    ("choice", "tools", "expected"),
    [
        ("auto", [CHAT_TOOL, CHAT_OTHER], "auto"),
        ("none", [CHAT_TOOL, CHAT_OTHER], "none"),
        ("required", [CHAT_TOOL, CHAT_OTHER], "required"),
        ({"type": "function", "name": "g"}, [CHAT_TOOL, CHAT_OTHER], {"type": "function", "function": {"name": "g"}}),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}, [CHAT_OTHER], "required"),
    ],
    ids=["auto", "none", "required", "one", "some"],
)
def test_the_choice_of_a_tool_is_the_same(choice: Any, tools: Any, expected: Any) -> None:
    body = sent({"input": "Hi", "tools": [TOOL, OTHER], "tool_choice": choice})
    assert (body["tools"], body["tool_choice"]) == (tools, expected)


def test_without_tools_there_is_no_choice_among_them() -> None:
    assert sent({"input": "Hi", "tools": [], "tool_choice": "auto", "parallel_tool_calls": True}) == {"messages": [USER]}


@pytest.mark.parametrize("kind", ["web_search", "file_search", "computer", "mcp", "code_interpreter", "image_generation", "custom"])
def test_tools_of_the_providers_own_are_refused_with_the_reason(kind: str) -> None:
    param, message = fault({"input": "Hi", "tools": [TOOL, {"type": kind, "name": "x"}]})
    assert (param, "no Responses API" in message, f"'{kind}'" in message) == ("tools[1]", True, True)
    assert fault({"input": "Hi", "tools": [TOOL], "tool_choice": {"type": kind}})[0] == "tool_choice"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"conversation": "c"}, "conversation"),
        ({"context_management": []}, "context_management"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": 1}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"id": "x"}]}, "input[0]"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [USER, {"type": "web_search_call", "id": "x"}]}, "input[1].type"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": 1}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0].file_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]}, "input[0].content[0].file_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].input_audio"),
        ({"input": [{**CALL, "call_id": None}]}, "input[0].call_id"),
        ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [OTHER]}}, "tool_choice.tools"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "s"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"verbosity": 1}}, "text.verbosity"),
        ({"reasoning": {"effort": 1}}, "reasoning.effort"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"include": "all"}, "include"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_output_tokens": 2**63}, "max_output_tokens"),
        ({"truncation": "some"}, "truncation"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"service_tier": 1}, "service_tier"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_chat_has_not_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    found, message = fault({"input": "Hi", **fields})
    assert found == param
    assert message.endswith(".")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "role", "content", "id"]), inner, max_size=4)
    ),
    max_leaves=8,
)
KNOWN = ["input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "n", "temperature"]


@hypothesis.settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KNOWN), JSON, max_size=5))
def test_any_request_is_either_refused_with_a_reason_or_a_chat_that_can_be_sent(fields: dict[str, Any]) -> None:
    found: GatewayError | None = None
    try:
        assert sent(fields)["messages"]
    except GatewayError as error:
        found = error
    assert found is None or (found.kind == ErrorKind.ERROR_KIND_INVALID_REQUEST and found.param)


def test_numbers_stay_as_they_are_written() -> None:
    chat = translate(
        {**raw({"input": "Hi"}), "tools": Raw(b'[{"type":"function","name":"f","parameters":{"maximum":1e400}}]')}, model="m"
    )
    assert b"1e400" in chat.tools_json
    assert msgspec.json.decode(chat.messages_json) == [USER]
