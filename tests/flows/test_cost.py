"""What a request costs: on its answer, in its trailers, in its span and in the counts, however it was asked or ended."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from twinspan.v1 import (
    admin_pb2,
    audio_pb2,
    chat_pb2,
    completions_pb2,
    content_pb2,
    embeddings_pb2,
    images_pb2,
    moderations_pb2,
    rerank_pb2,
    responses_pb2,
)
from twinspan.v1.admin_pb2_grpc import AdminServiceStub
from twinspan.v1.audio_pb2_grpc import AudioServiceStub
from twinspan.v1.chat_pb2_grpc import ChatServiceStub
from twinspan.v1.completions_pb2_grpc import CompletionsServiceStub
from twinspan.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from twinspan.v1.images_pb2_grpc import ImagesServiceStub
from twinspan.v1.moderations_pb2_grpc import ModerationsServiceStub
from twinspan.v1.rerank_pb2_grpc import RerankServiceStub
from twinspan.v1.responses_pb2_grpc import ResponsesServiceStub

from tests.flows.running import Running, configuration, running, running_over
from tests.flows.test_batches import begin, ended, line, written
from tests.flows.upstream import MODEL, OTHERS, USAGE, Script, Upstream, by_path, chunk, completion, says, streams, text, whole

PRICES = {"input_cost_per_1m": 3, "output_cost_per_1m": 15, "cached_input_cost_per_1m": 0.3, "cache_write_cost_per_1m": 3.75}
PLAIN_USD = "0.000072"
"""9 tokens read at 3 dollars a million, and 3 written at 15."""
RESPONSES_USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60, "cache_creation_tokens": 20},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 110,
}
RESPONSES_USD = "0.000303"
"""20 tokens read at 3 dollars a million, 60 cached ones at 0.3, 20 written to the cache at 3.75, and 10 written at 15."""
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
COST = "x-twinspan-cost-usd"


def priced(upstream: Upstream, **sections: Any) -> dict[str, Any]:
    """Returns a configuration over one provider, which says what its model costs."""
    provider = {"base_url": upstream.base_url, "api_key": "upstream-secret-key", "models": [MODEL], "model_info": {MODEL: PRICES}}
    provider["capabilities"] = ["stream_options", "responses"]
    return configuration(upstream.base_url, providers={"acme": provider}, **sections)


@pytest.fixture
async def dear(upstream: Upstream) -> AsyncIterator[Running]:
    async with running(priced(upstream)) as started:
        yield started


def chat(model: str = MODEL) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(model=model, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])


async def stats(twinspan: Running) -> admin_pb2.GetStatsResponse:
    answer: admin_pb2.GetStatsResponse = await AdminServiceStub(twinspan.network).GetStats(admin_pb2.GetStatsRequest())
    return answer


async def spans_cost(twinspan: Running) -> list[float | None]:
    """Returns what the spans of requests to models say of the cost of each."""
    ended = twinspan.spans.ended
    found = [span.attributes or {} for span in ended if span.attributes and "gen_ai.operation.name" in span.attributes]
    return [attributes.get("twinspan.cost_usd") for attributes in found]  # type: ignore[misc]  # a number or nothing


WHOLE: Mapping[str, tuple[str, Mapping[str, Any], Any, str, Any, Mapping[str, Any], str | None]] = {
    "chat": (
        "/v1/chat/completions",
        {**HELLO, "stream": False},
        ChatServiceStub,
        "Complete",
        chat_pb2.CompleteRequest(chat=chat()),
        completion({"role": "assistant", "content": "Hi."}),
        PLAIN_USD,
    ),
    "a completion": (
        "/v1/completions",
        {"model": MODEL, "prompt": "Hello"},
        CompletionsServiceStub,
        "Complete",
        completions_pb2.CompletionsServiceCompleteRequest(model=MODEL, prompt='"Hello"'),
        {"id": "cmpl-1", "choices": [{"index": 0, "text": "Hi.", "finish_reason": "stop"}], "usage": USAGE},
        PLAIN_USD,
    ),
    "embeddings": (
        "/v1/embeddings",
        {"model": MODEL, "input": "Hello"},
        EmbeddingsServiceStub,
        "Embed",
        embeddings_pb2.EmbedRequest(model=MODEL, input=["Hello"]),
        {"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 9, "total_tokens": 9}},
        "0.000027",
    ),
    "a response": (
        "/v1/responses",
        {"model": MODEL, "input": "Hello"},
        ResponsesServiceStub,
        "Create",
        responses_pb2.ResponsesServiceCreateRequest(openai_json=b'{"model": "model-1", "input": "Hello"}'),
        {"id": "resp_1", "object": "response", "status": "completed", "output": [], "usage": RESPONSES_USAGE},
        RESPONSES_USD,
    ),
    "reranking": (
        "/v1/rerank",
        {"model": MODEL, "query": "q", "documents": ["a"]},
        RerankServiceStub,
        "Rerank",
        rerank_pb2.RerankRequest(model=MODEL, query="q", documents=[rerank_pb2.RerankDocument(text="a")]),
        {"results": [{"index": 0, "relevance_score": 0.5}], "meta": {"tokens": {"input_tokens": 9, "output_tokens": 3}}},
        PLAIN_USD,
    ),
    "images": (
        "/v1/images/generations",
        {"model": MODEL, "prompt": "a hat"},
        ImagesServiceStub,
        "Generate",
        images_pb2.GenerateRequest(model=MODEL, prompt="a hat"),
        {"created": 1, "data": [{"b64_json": "AAAA"}], "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}},
        PLAIN_USD,
    ),
    "a moderation, of which nobody says what it consumed": (
        "/v1/moderations",
        {"model": MODEL, "input": "Hello"},
        ModerationsServiceStub,
        "Moderate",
        moderations_pb2.ModerateRequest(model=MODEL, input=[moderations_pb2.ModerationInput(text="Hello")]),
        {"id": "modr-1", "model": "omni-1", "results": [{"flagged": False, "categories": {}}]},
        None,
    ),
}


@pytest.mark.parametrize("case", WHOLE)
async def test_a_whole_answer_says_what_it_cost_on_both_surfaces(dear: Running, upstream: Upstream, case: str) -> None:
    path, body, stub, method, request, answer, usd = WHOLE[case]
    upstream.plays(whole(answer))
    over_rest = await dear.rest.post(path, json=body)
    assert over_rest.status_code == 200
    assert over_rest.headers.get(COST) == usd
    for channel in (dear.network, dear.inprocess):
        call = getattr(stub(channel), method)(request, metadata=dear.metadata)
        await call
        assert dict(await call.trailing_metadata()).get(COST) == usd
    expected = None if usd is None else float(usd)
    assert await spans_cost(dear) == [pytest.approx(expected)] * 3
    counted = await stats(dear)
    (model,) = counted.models
    assert model.cost_usd == counted.billing.cost_usd == pytest.approx(3 * (expected or 0))
    assert counted.billing.cost_usd_by_provider == {"acme": model.cost_usd}
    metrics = (await dear.rest.get("/metrics")).text
    assert f'twinspan_cost_usd_total{{agent="",model="model-1",provider="acme"}} {model.cost_usd}' in metrics


COMPLETED = {"type": "response.completed", "response": {"status": "completed", "usage": RESPONSES_USAGE}}
DONE = 'data: {"type":"transcript.text.done","text":"Hi","usage":{"input_tokens":9,"output_tokens":3,"total_tokens":12}}\n\n'
SPOKEN = 'data: {"type":"speech.audio.done","usage":{"input_tokens":9,"output_tokens":3,"total_tokens":12}}\n\n'
STREAMED: Mapping[str, tuple[Any, str, Any, Script, str]] = {
    "chat": (ChatServiceStub, "Stream", chat_pb2.StreamRequest(chat=chat()), says("Hi", "."), PLAIN_USD),
    "a completion": (
        CompletionsServiceStub,
        "Stream",
        completions_pb2.CompletionsServiceStreamRequest(
            completion=completions_pb2.CompletionsServiceCompleteRequest(model=MODEL, prompt='"Hello"')
        ),
        streams({"choices": [{"index": 0, "text": "Hi.", "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE}, "[DONE]"),
        PLAIN_USD,
    ),
    "a response": (
        ResponsesServiceStub,
        "Stream",
        responses_pb2.ResponsesServiceStreamRequest(
            request=responses_pb2.ResponsesServiceCreateRequest(openai_json=b'{"model": "model-1", "input": "Hello"}')
        ),
        streams({"type": "response.created"}, COMPLETED),
        RESPONSES_USD,
    ),
    "speech": (
        AudioServiceStub,
        "Speak",
        audio_pb2.SpeakRequest(model=MODEL, input="Hello.", voice="alloy"),
        text(SPOKEN, content_type="text/event-stream"),
        PLAIN_USD,
    ),
}


@pytest.mark.parametrize("channel", ["network", "inprocess"])
@pytest.mark.parametrize("case", STREAMED)
async def test_a_stream_says_what_it_cost_in_its_trailers(dear: Running, upstream: Upstream, case: str, channel: str) -> None:
    stub, method, request, script, usd = STREAMED[case]
    upstream.plays(script)
    call = getattr(stub(getattr(dear, channel)), method)(request, metadata=dear.metadata)
    assert COST not in dict(await call.initial_metadata())
    assert [message async for message in call]
    assert dict(await call.trailing_metadata())[COST] == usd
    assert await spans_cost(dear) == [pytest.approx(float(usd))]
    assert (await stats(dear)).billing.cost_usd == pytest.approx(float(usd))


async def test_a_stream_over_rest_costs_what_others_do_but_its_headers_leave_before_that_is_known(dear: Running) -> None:
    answer = await dear.chat({**HELLO, "stream": True})
    assert COST not in answer.headers
    assert "usage" not in answer.text
    assert (await stats(dear)).billing.cost_usd == pytest.approx(float(PLAIN_USD))


@pytest.mark.parametrize(
    ("script", "header"),
    [(whole({"text": "Hi.", "usage": USAGE}), PLAIN_USD), (text(DONE, content_type="text/event-stream"), None)],
    ids=["whole", "streamed"],
)
async def test_a_transcription_costs_too(dear: Running, upstream: Upstream, script: Script, header: str | None) -> None:
    upstream.plays(script)
    answer = await dear.rest.post("/v1/audio/transcriptions", data={"model": MODEL}, files={"file": ("a.wav", b"abc")})
    assert answer.headers.get(COST) == header
    assert await spans_cost(dear) == [pytest.approx(float(PLAIN_USD))]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_without_a_price_there_is_no_cost_rather_than_none_to_pay(twinspan: Running, stream: bool) -> None:
    answer = await twinspan.chat({**HELLO, "stream": stream})
    assert answer.status_code == 200
    assert COST not in answer.headers
    call = ChatServiceStub(twinspan.network).Complete(chat_pb2.CompleteRequest(chat=chat()), metadata=twinspan.metadata)
    await call
    assert COST not in dict(await call.trailing_metadata())
    assert await spans_cost(twinspan) == [None, None]
    assert (await stats(twinspan)).billing == admin_pb2.BillingStats(cost_usd_by_provider={"acme": 0}, unpriced_requests=2)


BREAKS = streams(chunk({"content": "Hi"}, usage=USAGE), ConnectionError())


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stream_that_breaks_off_costs_what_the_provider_said_until_then(
    dear: Running, upstream: Upstream, channel: str
) -> None:
    upstream.plays(BREAKS)
    call = ChatServiceStub(getattr(dear, channel)).Stream(chat_pb2.StreamRequest(chat=chat()), metadata=dear.metadata)
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in call:
            pass
    assert dict(await call.trailing_metadata())[COST] == PLAIN_USD
    assert await spans_cost(dear) == [pytest.approx(float(PLAIN_USD))]
    (model,) = (await stats(dear)).models
    assert model.errors == 1
    assert model.cost_usd == pytest.approx(float(PLAIN_USD))


async def test_a_stream_whose_caller_leaves_costs_what_the_provider_said_until_then(dear: Running, upstream: Upstream) -> None:
    upstream.plays(streams(chunk({"content": "Hi"}, usage=USAGE), asyncio.Event()))
    call = ChatServiceStub(dear.network).Stream(chat_pb2.StreamRequest(chat=chat()), metadata=dear.metadata)
    assert await call.read()
    call.cancel()
    async with asyncio.timeout(5):
        await upstream.requests[0].gone.wait()
    await dear.spans.trees()
    counted = await stats(dear)
    assert counted.billing.cost_usd == pytest.approx(float(PLAIN_USD))
    assert counted.models[0].errors == 0


async def test_an_answer_that_cannot_be_had_costs_nothing_that_is_known(dear: Running, upstream: Upstream) -> None:
    upstream.plays(whole({"error": {"message": "Oops."}}, 500))
    answer = await dear.chat({**HELLO, "stream": False})
    assert (answer.status_code, COST in answer.headers) == (502, False)
    assert (await stats(dear)).billing == admin_pb2.BillingStats(cost_usd_by_provider={"acme": 0})


async def test_a_failure_that_was_paid_for_says_so(dear: Running, upstream: Upstream) -> None:
    upstream.plays(whole({"results": "none", "usage": USAGE}))
    answer = await dear.rest.post("/v1/rerank", json={"model": MODEL, "query": "q", "documents": ["a"]})
    assert (answer.status_code, answer.headers[COST]) == (502, PLAIN_USD)


async def test_what_failed_attempts_consumed_is_on_the_bill_too(upstream: Upstream) -> None:
    half = {"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 100, "total_tokens": 100}}
    both = {"data": [{"index": n, "embedding": [0.5]} for n in (0, 1)], "usage": {"prompt_tokens": 200, "total_tokens": 200}}
    async with Upstream() as second:
        upstream.plays(whole(half), whole({"error": {"message": "Oops."}}, 500))
        second.plays(whole(both))
        dear = {"api_key": "upstream-secret-key", "models": [MODEL], "model_info": {MODEL: PRICES}}
        sections = configuration(
            upstream.base_url,
            providers={
                "first": {**dear, "base_url": upstream.base_url, "max_embedding_inputs": 1},
                "second": {**dear, "base_url": second.base_url},
            },
            agents={"smart": {"models": [MODEL]}},
        )
        async with running(sections) as twinspan:
            answer = await twinspan.rest.post("/v1/embeddings", json={"model": "smart", "input": ["one", "two"]})
            assert (answer.status_code, answer.headers["X-Twinspan-Attempts"]) == (200, "2")
            counted = await stats(twinspan)
            spent = counted.billing.cost_usd_by_provider
            assert spent["second"] == pytest.approx(0.0006)
            # The two pieces are asked at once, so the first one's answer may or may not come before the second one's refusal.
            assert round(spent["first"], 9) in {0, 0.0003}
            assert float(answer.headers[COST]) == pytest.approx(counted.billing.cost_usd)


async def test_a_target_without_a_price_leaves_the_cost_of_the_whole_request_unknown(upstream: Upstream) -> None:
    async with Upstream() as second:
        upstream.plays(streams("[DONE]"))
        provider = {"api_key": "upstream-secret-key"}
        sections = configuration(
            upstream.base_url,
            providers={
                "first": {**provider, "base_url": upstream.base_url, "models": ["one"], "model_info": {"one": PRICES}},
                "second": {**provider, "base_url": second.base_url, "models": ["two"]},
            },
            agents={"smart": {"models": ["one", "two"]}},
        )
        async with running(sections) as twinspan:
            call = ChatServiceStub(twinspan.network).Stream(chat_pb2.StreamRequest(chat=chat("smart")), metadata=twinspan.metadata)
            assert [message async for message in call]
            trailers = dict(await call.trailing_metadata())
            assert (trailers["x-twinspan-provider"], COST in trailers) == ("second", False)
            assert "twinspan_empty_stream_total 1.0" in (await twinspan.rest.get("/metrics")).text


async def test_the_lines_of_batches_cost_what_other_requests_do(upstream: Upstream, tmp_path: Path) -> None:
    async with running(priced(upstream, files={"dir": str(tmp_path / "files")})) as twinspan, twinspan.openai() as sdk:
        batch = await begin(sdk, written(*(line(number) for number in range(5)), line(6, body={"model": "nobody-has-this"})))
        await ended(sdk, batch)
        counted = await stats(twinspan)
        assert counted.billing.cost_usd == pytest.approx(5 * float(PLAIN_USD))
        assert counted.batches == admin_pb2.BatchStats(completed_requests=5, failed_requests=1)
        metrics = (await twinspan.rest.get("/metrics")).text
        assert 'twinspan_batch_lines_total{result="completed"} 5.0' in metrics
        assert 'twinspan_batch_lines_total{result="failed"} 1.0' in metrics


async def test_a_stall_in_mid_answer_is_counted(upstream: Upstream) -> None:
    upstream.plays(streams(chunk({"content": "Hi"}), asyncio.Event()))
    async with running_over(upstream, governance={"stream_idle_timeout_seconds": 0.05}) as twinspan:
        await twinspan.chat({**HELLO, "stream": True})
        assert "twinspan_stream_stalled_total 1.0" in (await twinspan.rest.get("/metrics")).text


async def test_bytes_that_are_forwarded_are_counted_by_direction(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(by_path(OTHERS))
    answer = await twinspan.rest.post("/proxy/acme/v1/audio/speech", content=b'{"input": "Hello."}')
    assert answer.content == b"RIFF"
    metrics = (await twinspan.rest.get("/metrics")).text
    assert 'twinspan_forwarded_bytes_total{direction="sent",provider="acme"} 19.0' in metrics
    assert 'twinspan_forwarded_bytes_total{direction="received",provider="acme"} 4.0' in metrics


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_response_that_a_chat_came_to_costs_what_the_chat_does(upstream: Upstream, stream: bool) -> None:
    sections = priced(upstream)
    del sections["providers"]["acme"]["capabilities"]
    upstream.plays(says("Hi."))
    async with running(sections) as twinspan:
        answer = await twinspan.rest.post("/v1/responses", json={"model": MODEL, "input": "Hello", "stream": stream})
        assert answer.headers.get(COST) == (None if stream else PLAIN_USD)
        assert [f"{cost:.6f}" for cost in await spans_cost(twinspan) if cost is not None] == [PLAIN_USD]
        [model] = (await stats(twinspan)).models
        assert f"{model.cost_usd:.6f}" == PLAIN_USD
