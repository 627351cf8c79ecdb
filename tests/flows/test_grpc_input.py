"""What a caller over the network may do wrong in a `ChatRequest`, and a request in typed messages that is right."""

import json
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from tests.flows.running import Running
from tests.flows.upstream import MODEL, Upstream

HELLO = content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")


def chat(**fields: Any) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(**{"model": MODEL, "messages": [HELLO], **fields})


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat(model=""), "model"),
        (chat(model="m" * 257), "model"),
        (chat(messages=[]), "messages"),
        (chat(n=0), "n"),
        (chat(n=129), "n"),
        (chat(extra={"top_k": "4x"}), "extra.top_k"),
        (chat(extra={"model": '"another"'}), "extra.model"),
        (chat(extra={"messages": "[]"}), "extra.messages"),
        (chat(extra={"stream": "true"}), "extra.stream"),
        (chat(messages=[], messages_json=b"{}"), "messages_json"),
        (chat(messages=[], messages_json=b"[]"), "messages_json"),
        (chat(messages=[], messages_json=b'[{"role":"user"}],"model":"another"'), "messages_json"),
        (chat(messages=[], messages_json=b'[{"role":"\xff"}]'), "messages_json"),
        (chat(tools_json=b"[1]"), "tools_json"),
        (chat(tools=[content_pb2.Tool(name="f", parameters="{")]), "tools[0].parameters"),
        (chat(tool_choice=content_pb2.ToolChoice(json="nope")), "tool_choice.json"),
        (
            chat(messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(json='{"a":')])]),
            "messages[0].parts[0].json",
        ),
        (chat(messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="x", extra={"y": "}"})]), "messages[0].extra.y"),
        (chat(messages=[content_pb2.Message(role=99, text="x")]), "messages[0].role"),  # type: ignore[arg-type]  # of a newer client
        (chat(temperature=float("nan")), "temperature"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_field_that_cannot_be_sent_on_is_named(
    twinspan: Running, upstream: Upstream, request_: chat_pb2.ChatRequest, param: str, stream: bool
) -> None:
    stub = ChatServiceStub(twinspan.network)
    under_way: Any
    if stream:
        under_way = stub.Stream(chat_pb2.StreamRequest(chat=request_), metadata=twinspan.metadata, timeout=5).read()
    else:
        under_way = stub.Complete(chat_pb2.CompleteRequest(chat=request_), metadata=twinspan.metadata, timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await under_way
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(raised.value)
    assert status is not None
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert bad.field_violations[0].field == param
    assert upstream.requests == []
    assert twinspan.complaints() == []


async def test_a_typed_conversation_reaches_the_provider_and_a_typed_answer_comes_back(
    twinspan: Running, upstream: Upstream
) -> None:
    messages = [
        content_pb2.Message(role=content_pb2.ROLE_SYSTEM, text="Be brief."),
        content_pb2.Message(
            role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="Look"), content_pb2.Part(json='{"type":"x"}')]
        ),
    ]
    request = chat_pb2.CompleteRequest(chat=chat(messages=messages, temperature=0.5, extra={"top_k": "4"}))
    answer = await ChatServiceStub(twinspan.network).Complete(request, metadata=twinspan.metadata, timeout=5)
    assert answer.choices[0].message.text == "Hello there."
    assert answer.choices[0].finish_reason == content_pb2.FINISH_REASON_STOP
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (9, 3)
    assert answer.info.model == MODEL
    assert upstream.requests[0].body == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "x"}]},
        ],
        "temperature": 0.5,
        "top_k": 4,
    }


async def test_a_message_over_the_limit_is_refused_and_the_connection_lives_on(twinspan: Running) -> None:
    stub = ChatServiceStub(twinspan.network)
    large = chat(messages=[], messages_json=json.dumps([{"role": "user", "content": "x" * (65 * 1024 * 1024)}]).encode())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Complete(chat_pb2.CompleteRequest(chat=large), metadata=twinspan.metadata, timeout=10)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await stub.Complete(chat_pb2.CompleteRequest(chat=chat()), metadata=twinspan.metadata, timeout=5)).choices
