"""Legacy completions and generated images: one JSON object in, one or a stream of events out."""

import asyncio
import json
from typing import Any

import grpc
import openai
import pytest
from twinspan.v1 import completions_pb2, images_pb2
from twinspan.v1.completions_pb2_grpc import CompletionsServiceStub
from twinspan.v1.images_pb2_grpc import ImagesServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running
from tests.flows.upstream import MODEL, Upstream, streams, text, whole

USAGE = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
CHOICE = {"index": 0, "text": "Hello.", "finish_reason": "stop", "logprobs": {"tokens": ["Hello."]}}
ANSWER = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "choices": [CHOICE], "usage": USAGE, "x_new": 1}
IMAGE_USAGE = {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}
IMAGE = {"created": 7, "data": [{"b64_json": "AAAA", "x_new": 1}], "usage": IMAGE_USAGE}
PARTIAL = {"type": "image_generation.partial_image", "b64_json": "AA==", "partial_image_index": 0}
COMPLETED = {"type": "image_generation.completed", "b64_json": "AAAA", "usage": IMAGE_USAGE}


def piece(said: str, finish_reason: str | None = None) -> dict[str, Any]:
    choices = [{"index": 0, "text": said, "finish_reason": finish_reason}]
    return {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "choices": choices}


USED = {**piece(""), "choices": [], "usage": USAGE}


@pytest.mark.parametrize("prompt", ["Say", ["a", "b"], [1, 2], [[1], [2]]], ids=str)
async def test_the_official_sdk_gets_a_whole_completion(twinspan: Running, upstream: Upstream, prompt: Any) -> None:
    upstream.plays(whole(ANSWER))
    async with twinspan.openai() as client:
        raw = await client.completions.with_raw_response.create(
            model=MODEL, prompt=prompt, n=2, echo=True, logprobs=1, suffix=".", extra_body={"x_request": [1]}
        )
    assert raw.parse().choices[0].text == "Hello."
    assert raw.headers["X-Twinspan-Model"] == MODEL
    said = {"model": MODEL, "prompt": prompt, "n": 2, "echo": True, "logprobs": 1, "suffix": ".", "x_request": [1]}
    assert (upstream.requests[0].path, upstream.requests[0].body) == ("/v1/completions", said)
    assert twinspan.complaints() == []


@pytest.mark.parametrize("asked", [True, False])
async def test_the_official_sdk_gets_a_stream_and_its_usage_if_it_asked(twinspan: Running, upstream: Upstream, asked: bool) -> None:
    upstream.plays(streams(piece("Hel"), piece("lo.", "stop"), USED, "[DONE]"))
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    async with twinspan.openai() as client:
        chunks = [chunk async for chunk in await client.completions.create(model=MODEL, prompt="a", stream=True, **options)]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "Hello."
    assert [chunk.usage is not None for chunk in chunks] == [False, False, True][: 2 + asked]
    assert upstream.requests[0].body["stream"] is True


async def test_a_provider_that_knows_stream_options_is_asked_for_the_usage(upstream: Upstream) -> None:
    upstream.plays(streams(piece("Hi.", "stop"), USED, "[DONE]"))
    providers = {"acme": {"base_url": upstream.base_url, "models": [MODEL], "capabilities": ["stream_options"]}}
    async with running(configuration(upstream.base_url, providers=providers)) as twinspan:
        request = completions_pb2.CompletionsServiceStreamRequest(
            completion=completions_pb2.CompletionsServiceCompleteRequest(model=MODEL, prompt='"a"')
        )
        call = CompletionsServiceStub(twinspan.network).Stream(request, metadata=twinspan.metadata, timeout=5)
        messages = [message async for message in call]
    assert upstream.requests[0].body == {"model": MODEL, "prompt": "a", "stream": True, "stream_options": {"include_usage": True}}
    assert [json.loads(event.json) for message in messages for event in message.events] == [piece("Hi.", "stop")]


async def test_events_leave_as_they_come(twinspan: Running, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.plays(streams(piece("a"), go_on, piece("b", "stop"), "[DONE]"))
    async with twinspan.openai() as client:
        stream = await client.completions.create(model=MODEL, prompt="a", stream=True)
        assert (await anext(stream)).choices[0].text == "a"
        go_on.set()
        assert [chunk.choices[0].text async for chunk in stream] == ["b"]


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stub_gets_completions_in_typed_messages(twinspan: Running, upstream: Upstream, channel: str) -> None:
    upstream.plays(whole(ANSWER), streams(piece("Hi.", "stop"), USED, "[DONE]"))
    request = completions_pb2.CompletionsServiceCompleteRequest(model=MODEL, prompt='["a"]', max_tokens=3, extra={"seed": "1"})
    stub = CompletionsServiceStub(getattr(twinspan, channel))
    answer = await stub.Complete(request, metadata=twinspan.metadata, timeout=5)
    assert (answer.id, answer.choices[0].text, answer.usage.total_tokens, dict(answer.extra)["x_new"]) == (
        "cmpl-1",
        "Hello.",
        5,
        "1",
    )
    assert json.loads(answer.choices[0].logprobs) == CHOICE["logprobs"]
    assert upstream.requests[0].body == {"model": MODEL, "prompt": ["a"], "max_tokens": 3, "seed": 1}
    streamed = completions_pb2.CompletionsServiceStreamRequest(completion=request)
    messages = [message async for message in stub.Stream(streamed, metadata=twinspan.metadata, timeout=5)]
    assert json.loads(messages[0].events[0].json) == piece("Hi.", "stop")


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ((piece("a"), {"error": {"message": "Too much."}}), "provider_error"),
        ((piece("a"), "{"), "provider_error"),
        ((piece("a"), ConnectionError()), "network_error"),
        ((piece("a"),), "network_error"),
    ],
    ids=["an error", "no JSON", "broken off", "no end"],
)
async def test_a_stream_that_fails_ends_with_an_error(twinspan: Running, upstream: Upstream, events: Any, kind: str) -> None:
    upstream.plays(streams(*events))
    answer = await twinspan.rest.post("/v1/completions", json={"model": MODEL, "prompt": "a", "stream": True})
    *_, failed, done, rest = answer.text.split("\n\n")
    assert json.loads(failed.removeprefix("data: "))["error_kind"] == kind
    assert (done, rest) == ("data: [DONE]", "")
    assert twinspan.complaints() == []


async def test_an_error_before_the_first_event_is_a_true_status(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(text('{"error": {"message": "No."}}', 400, "application/json"))
    async with twinspan.openai() as client:
        with pytest.raises(openai.BadRequestError):
            await client.completions.create(model=MODEL, prompt="a", stream=True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": [{}]}, "prompt[0]"),
        ({"n": 0}, "n"),
        ({"model": None}, "model"),
        ({"stream_options": 1}, "stream_options"),
    ],
    ids=str,
)
async def test_bad_input_is_refused_whole_or_streamed(
    twinspan: Running,
    upstream: Upstream,
    change: dict[str, Any],
    param: str,
    stream: bool,
) -> None:
    body = {"model": MODEL, "prompt": "a", "stream": stream, **change}
    answer = await twinspan.rest.post("/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    request = completions_pb2.CompletionsServiceCompleteRequest(openai_json=json.dumps(body).encode())
    stub = CompletionsServiceStub(twinspan.network)
    streamed = completions_pb2.CompletionsServiceStreamRequest(completion=request)
    options: dict[str, Any] = {"metadata": twinspan.metadata, "timeout": 5}
    asked = stub.Stream(streamed, **options).read() if stream else stub.Complete(request, **options)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asked
    assert errors.of_rpc(raised.value).message == answer.json()["error"]["message"]
    assert upstream.requests == []


async def test_the_official_sdk_gets_an_image(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(whole(IMAGE))
    async with twinspan.openai() as client:
        raw = await client.images.with_raw_response.generate(model=MODEL, prompt="a cat", size="1024x1024")
    (image,) = raw.parse().data or []
    assert image.b64_json == "AAAA"
    assert raw.headers["X-Twinspan-Provider"] == "acme"
    asked = {"model": MODEL, "prompt": "a cat", "size": "1024x1024"}
    assert (upstream.requests[0].path, upstream.requests[0].body) == ("/v1/images/generations", asked)


async def test_the_official_sdk_gets_partial_images(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(streams(PARTIAL, COMPLETED))
    async with twinspan.openai() as client:
        stream = await client.images.generate(model=MODEL, prompt="a cat", stream=True, partial_images=1)
        events = [event async for event in stream]
    assert [event.type for event in events] == [PARTIAL["type"], COMPLETED["type"]]
    assert twinspan.complaints() == []


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stub_gets_images_in_typed_messages(twinspan: Running, upstream: Upstream, channel: str) -> None:
    upstream.plays(whole(IMAGE), streams(PARTIAL, COMPLETED))
    request = images_pb2.GenerateRequest(model=MODEL, prompt="a cat", n=1)
    stub = ImagesServiceStub(getattr(twinspan, channel))
    answer = await stub.Generate(request, metadata=twinspan.metadata, timeout=5)
    assert (answer.data[0].b64_json, answer.data[0].extra["x_new"], answer.usage.input_tokens) == ("AAAA", "1", 2)
    streamed = images_pb2.GenerateStreamRequest(image=request)
    messages = [message async for message in stub.GenerateStream(streamed, metadata=twinspan.metadata, timeout=5)]
    assert [event.type for message in messages for event in message.events] == [PARTIAL["type"], COMPLETED["type"]]
    assert messages[-1].usage.total_tokens == 5


async def test_an_image_is_not_made_twice(upstream: Upstream) -> None:
    upstream.plays(text("", 500))
    agents = {"painter": {"models": [MODEL], "max_retries": 2}}
    async with running(configuration(upstream.base_url, agents=agents)) as twinspan:
        for stream in (True, False):
            answer = await twinspan.rest.post("/v1/images/generations", json={"model": "painter", "prompt": "a", "stream": stream})
            assert answer.status_code == 502
    assert len(upstream.requests) == 2
