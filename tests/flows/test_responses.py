"""The Responses API, carried to providers that have it: whole, streamed, and what is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import openai
import pytest
from twinspan.v1 import responses_pb2
from twinspan.v1.responses_pb2_grpc import ResponsesServiceStub

from bridge import errors
from tests.flows.running import Running, running_over
from tests.flows.upstream import MODEL, Upstream, streams, text, whole

PROVIDER = {"api_key": "upstream-secret-key", "models": [MODEL], "capabilities": ["stream_options", "responses"]}
USAGE = {
    "input_tokens": 2,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 5,
}
PART = {"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}
ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [PART]}
ANSWER = {"id": "resp_1", "object": "response", "created_at": 7, "model": "m", "status": "completed", "output": [ITEM], "x_new": 1}
WHOLE = {**ANSWER, "usage": USAGE}
CREATED = {
    "type": "response.created",
    "sequence_number": 0,
    "response": {**ANSWER, "status": "in_progress", "output": [], "usage": None},
}
DELTA = {
    "type": "response.output_text.delta",
    "sequence_number": 4,
    "item_id": "msg_1",
    "output_index": 0,
    "content_index": 0,
    "delta": "Hello.",
    "logprobs": [],
}
ITEM_DONE = {"type": "response.output_item.done", "sequence_number": 7, "output_index": 0, "item": ITEM}
COMPLETED = {"type": "response.completed", "sequence_number": 8, "response": WHOLE}
ALL = (CREATED, DELTA, ITEM_DONE, COMPLETED)


@pytest.fixture
async def twinspan(upstream: Upstream) -> AsyncIterator[Running]:
    """Runs a gateway over a provider that declares the Responses API."""
    async with running_over(upstream, providers={"acme": {**PROVIDER, "base_url": upstream.base_url}}) as started:
        yield started


async def test_the_official_sdk_gets_a_whole_response(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(whole(WHOLE))
    async with twinspan.openai() as client:
        raw = await client.responses.with_raw_response.create(model=MODEL, input="Hi", max_output_tokens=9, store=False)
    answer = raw.parse()
    assert (answer.output_text, answer.usage and answer.usage.total_tokens) == ("Hello.", 5)
    assert raw.headers["X-Twinspan-Model"] == MODEL
    said = {"model": MODEL, "input": "Hi", "max_output_tokens": 9, "store": False}
    assert (upstream.requests[0].path, upstream.requests[0].body) == ("/v1/responses", said)
    assert twinspan.complaints() == []


async def test_the_official_sdk_gets_each_event_as_it_comes(twinspan: Running, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.plays(streams(CREATED, go_on, DELTA, ITEM_DONE, COMPLETED))
    async with twinspan.openai() as client:
        stream = await client.responses.create(model=MODEL, input="Hi", stream=True)
        assert (await anext(stream)).sequence_number == 0
        go_on.set()
        assert [event.sequence_number async for event in stream] == [4, 7, 8]
    assert twinspan.complaints() == []


async def test_events_keep_their_names_and_their_text(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(streams(*ALL))
    answer = await twinspan.rest.post("/v1/responses", json={"model": MODEL, "input": "Hi", "stream": True})
    *events, rest = answer.text.split("\n\n")
    lines = [event.split("\n") for event in events]
    assert [name for name, _ in lines] == [f"event: {event['type']}" for event in ALL]
    assert [json.loads(data.removeprefix("data: ")) for _, data in lines] == list(ALL)
    assert rest == ""


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stub_gets_responses_in_typed_messages(twinspan: Running, upstream: Upstream, channel: str) -> None:
    upstream.plays(whole(WHOLE), streams(*ALL))
    request = responses_pb2.ResponsesServiceCreateRequest(model=MODEL, input='"Hi"', extra={"store": "false"})
    stub = ResponsesServiceStub(getattr(twinspan, channel))
    answer = await stub.Create(request, metadata=twinspan.metadata, timeout=5)
    assert (answer.id, answer.status, json.loads(answer.output), dict(answer.extra)["x_new"]) == (
        "resp_1",
        "completed",
        [ITEM],
        "1",
    )
    assert answer.usage.total_tokens == 5
    assert upstream.requests[0].body == {"model": MODEL, "input": "Hi", "store": False}
    streamed = responses_pb2.ResponsesServiceStreamRequest(request=request)
    messages = [message async for message in stub.Stream(streamed, metadata=twinspan.metadata, timeout=5)]
    assert [json.loads(event.json) for message in messages for event in message.events] == list(ALL)
    assert messages[-1].usage.total_tokens == 5


@pytest.mark.parametrize("end", ["response.incomplete", "response.failed"])
async def test_a_response_that_ends_otherwise_is_the_providers_word(twinspan: Running, upstream: Upstream, end: str) -> None:
    last = {**COMPLETED, "type": end}
    upstream.plays(streams(CREATED, last))
    answer = await twinspan.rest.post("/v1/responses", json={"model": MODEL, "input": "Hi", "stream": True})
    assert json.loads(answer.text.split("\n\n")[-2].partition("data: ")[2]) == last


@pytest.mark.parametrize("events", [(CREATED, ConnectionError()), (CREATED, ITEM_DONE)], ids=["broken off", "no end"])
async def test_a_stream_without_its_end_ends_with_an_error(twinspan: Running, upstream: Upstream, events: Any) -> None:
    upstream.plays(streams(*events))
    async with twinspan.openai() as client:
        with pytest.raises(openai.APIError, match="acme"):
            [event async for event in await client.responses.create(model=MODEL, input="Hi", stream=True)]
    assert twinspan.complaints() == []


async def test_an_error_before_the_first_event_is_a_true_status(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(text('{"error": {"message": "No."}}', 400, "application/json"))
    async with twinspan.openai() as client:
        with pytest.raises(openai.BadRequestError):
            await client.responses.create(model=MODEL, input="Hi", stream=True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"input": 1}, "input"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"max_output_tokens": "9"}, "max_output_tokens"),
    ],
    ids=str,
)
async def test_bad_input_is_refused_alike_on_both_surfaces(
    twinspan: Running, upstream: Upstream, change: dict[str, Any], param: str, stream: bool
) -> None:
    body = {"model": MODEL, "input": "Hi", "stream": stream, **change}
    answer = await twinspan.rest.post("/v1/responses", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    request = responses_pb2.ResponsesServiceCreateRequest(openai_json=json.dumps(body).encode())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ResponsesServiceStub(twinspan.network).Create(request, metadata=twinspan.metadata, timeout=5)
    assert errors.of_rpc(refused.value).kind_name == "invalid_request"
    assert upstream.requests == []
