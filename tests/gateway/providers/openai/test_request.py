"""What a chat becomes on the wire of an OpenAI-compatible provider."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinspan.v1 import chat_pb2, content_pb2

from bridge.dialects.openai_chat.request import ChatBody
from gateway.providers.openai.request import encode

USER = content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")


def written(chat: chat_pb2.ChatRequest, *, stream: bool = False, stream_options: bool = True) -> Any:
    """Returns the body that is sent; a name that is given twice in it is an error."""
    body = encode(chat, model="theirs", stream=stream, stream_options=stream_options)
    return json.loads(body, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def read(body: dict[str, Any]) -> chat_pb2.ChatRequest:
    chat = chat_pb2.ChatRequest()
    ChatBody(json.dumps(body).encode()).fill(chat)
    return chat


def test_typed_messages_are_written_in_openais_form() -> None:
    chat = chat_pb2.ChatRequest(
        model="ours",
        messages=[
            content_pb2.Message(role=content_pb2.ROLE_SYSTEM, text="Be brief."),
            content_pb2.Message(
                role=content_pb2.ROLE_USER,
                name="ann",
                parts=[
                    content_pb2.Part(text="Look:"),
                    content_pb2.Part(image=content_pb2.Image(url="data:,x", detail="low")),
                    content_pb2.Part(audio=content_pb2.Audio(data="AAAA", format="wav")),
                    content_pb2.Part(file=content_pb2.File(file_id="file-1")),
                    content_pb2.Part(json='{"type":"video","n":1}'),
                ],
            ),
            content_pb2.Message(
                role=content_pb2.ROLE_ASSISTANT,
                reasoning="Hm.",
                tool_calls=[content_pb2.ToolCall(id="c1", name="f", arguments='{"a":1}', extra={"x": "[1]"})],
            ),
            content_pb2.Message(role=content_pb2.ROLE_TOOL, tool_call_id="c1", text="Sunny.", extra={"cache_control": '{"a":1}'}),
        ],
        tools=[content_pb2.Tool(name="f", description="d", parameters='{"type":"object"}', strict=True)],
        tool_choice=content_pb2.ToolChoice(mode=content_pb2.TOOL_CHOICE_MODE_NAMED, name="f"),
    )
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}, "x": [1]}
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    assert written(chat) == {
        "model": "theirs",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": "data:,x", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "video", "n": 1},
                ],
            },
            {"role": "assistant", "reasoning_content": "Hm.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "Sunny.", "cache_control": {"a": 1}},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    }


def test_what_has_a_field_of_its_own_cannot_be_changed_by_extra_fields() -> None:
    extra = dict.fromkeys(("model", "messages", "stream", "tools", "temperature", "n", "top_k"), '"stolen"')
    typed = chat_pb2.ChatRequest(messages=[USER], tools=[content_pb2.Tool(name="f")], temperature=0.5, n=2, extra=extra)
    message = {"role": "user", "content": "Hello"}
    tools = [{"type": "function", "function": {"name": "f"}}]
    kept = {"model": "theirs", "messages": [message], "tools": tools, "temperature": 0.5, "n": 2, "top_k": "stolen"}
    assert written(typed) == kept
    carried = chat_pb2.ChatRequest(
        messages_json=json.dumps([message]).encode(), tools_json=json.dumps(tools).encode(), temperature=0.5, n=2, extra=extra
    )
    assert written(carried) == kept
    assert written(carried, stream=True)["stream"] is True


@pytest.mark.parametrize(
    ("asked", "stream", "knows", "expected"),
    [
        (None, True, True, {"include_usage": True}),
        ({"include_usage": False, "x": 1}, True, True, {"include_usage": True, "x": 1}),
        (None, True, False, None),
        (None, False, True, None),
        ({"include_usage": True}, False, True, None),
    ],
)
def test_a_stream_is_asked_for_its_usage_where_the_provider_knows_how(
    asked: dict[str, Any] | None, stream: bool, knows: bool, expected: dict[str, Any] | None
) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
    chat = read(body if asked is None else {**body, "stream_options": asked})
    assert written(chat, stream=stream, stream_options=knows).get("stream_options") == expected


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
unknown = st.dictionaries(st.text(min_size=1, max_size=6).map(lambda name: f"x_{name}"), json_values, max_size=3)
messages = st.builds(
    lambda role, content, more: {"role": role, "content": content, **more},
    st.sampled_from(["system", "user", "assistant", "tool", "critic"]),
    st.text(max_size=20)
    | st.none()
    | st.lists(st.builds(lambda text, more: {"type": "text", "text": text, **more}, st.text(), unknown)),
    unknown,
)


@given(st.lists(messages, min_size=1, max_size=4), unknown, st.none() | st.floats(0, 2), st.none() | st.integers(1, 9))
def test_what_a_client_sends_reaches_the_provider_whole(
    conversation: list[Any], more: dict[str, Any], temperature: float | None, top_k: int | None
) -> None:
    body = {"messages": conversation, "temperature": temperature, "top_k": top_k, **more}
    assert written(read(body)) == {**body, "model": "theirs"}
