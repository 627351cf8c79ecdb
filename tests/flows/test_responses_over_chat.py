"""The Responses API over a provider that has only chat: official SDK and typed stubs get what a provider of that API would say."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import openai
import pytest
from pydantic import BaseModel
from twinspan.v1 import responses_pb2
from twinspan.v1.responses_pb2_grpc import ResponsesServiceStub

from bridge import errors
from tests.flows.running import Running, running_over
from tests.flows.upstream import MODEL, USAGE, Script, Upstream, chunk, completion, hangs, says, streams, text, whole
from tests.gateway.responses.openai_types import checked_event, checked_response
from tests.gateway.telemetry.trees import Node

Request = responses_pb2.ResponsesServiceCreateRequest
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
CALLS = [
    {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}},
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
]
SHOWN_USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}


def calls() -> Script:
    """Calls two tools at once, their arguments interleaved."""
    head = [{"index": n, "id": call["id"], "type": "function", "function": {"name": "weather"}} for n, call in enumerate(CALLS)]
    pieces = [(0, '{"city"'), (1, '{"city":"Ro'), (0, ':"Bern"}'), (1, 'me"}')]
    return streams(
        chunk({"role": "assistant", "content": None, "tool_calls": head}),
        *(chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}) for index, piece in pieces),
        chunk({}, finish_reason="tool_calls"),
        chunk(usage=USAGE),
        "[DONE]",
    )


def without_ids(response: Any) -> Any:
    """Returns a response without what differs from one to the next."""
    output = [{name: value for name, value in item.items() if name != "id"} for item in response["output"]]
    return {name: value for name, value in response.items() if name not in {"id", "created_at", "completed_at"}} | {
        "output": output
    }


async def test_the_sdk_gets_a_whole_response(twinspan: Running, upstream: Upstream) -> None:
    async with twinspan.openai() as client:
        raw = await client.responses.with_raw_response.create(
            model=MODEL, instructions="Be brief.", input="Hi", max_output_tokens=9, metadata={"a": "b"}
        )
    answer = raw.parse()
    checked_response(raw.content)
    assert (answer.output_text, answer.status, answer.model) == ("Hello there.", "completed", MODEL)
    assert answer.usage is not None
    assert answer.usage.to_dict() == SHOWN_USAGE
    assert (answer.instructions, answer.max_output_tokens, answer.metadata) == ("Be brief.", 9, {"a": "b"})
    assert (raw.headers["X-Twinspan-Provider"], raw.headers["X-Twinspan-Model"]) == ("acme", MODEL)
    (request,) = upstream.requests
    assert (request.path, request.body) == (
        "/v1/chat/completions",
        {
            "model": MODEL,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "max_completion_tokens": 9,
        },
    )
    assert twinspan.complaints() == []


async def test_identifiers_are_new_each_time(twinspan: Running) -> None:
    async with twinspan.openai() as client:
        answers = [await client.responses.create(model=MODEL, input="Hi") for _ in range(3)]
    ids = [identifier for answer in answers for identifier in (answer.id, answer.output[0].id)]
    assert len(set(ids)) == 6
    assert all(identifier.partition("_")[0] in {"resp", "msg"} for identifier in map(str, ids))


async def test_the_sdk_gets_each_event_as_it_comes(twinspan: Running, upstream: Upstream) -> None:
    """Lesson 3: forward at once."""
    go_on = asyncio.Event()
    upstream.plays(streams(chunk({"content": "Hel"}), go_on, chunk({"content": "lo"}), chunk({}, finish_reason="stop"), "[DONE]"))
    async with twinspan.openai() as client:
        stream = await client.responses.create(model=MODEL, input="Hi", stream=True)
        seen = [(await anext(stream)).type for _ in range(5)]
        assert seen[-1] == "response.output_text.delta"
        go_on.set()
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(5, 5 + len(events)))
    assert events[-1].type == "response.completed"
    assert twinspan.complaints() == []


async def test_the_sdks_helper_gathers_the_response_that_the_last_event_holds(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(says("Hel", "lo"), calls())
    async with twinspan.openai() as client:
        for wanted in ("Hello", ""):
            async with client.responses.stream(model=MODEL, input="Hi", tools=[TOOL]) as stream:
                events = [event async for event in stream]
                answer = await stream.get_final_response()
            assert answer.output_text == wanted
            last = events[-1]
            assert last.type == "response.completed"
            assert last.response == answer
            done = [event.item.to_dict() for event in events if event.type == "response.output_item.done"]
            assert [item["id"] for item in done] == [item.to_dict()["id"] for item in answer.output]
    calls_made = [(item.call_id, item.parsed_arguments) for item in answer.output if item.type == "function_call"]
    assert calls_made == [("c0", {"city": "Bern"}), ("c1", {"city": "Rome"})]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12


async def test_whole_and_streamed_are_the_same_response(twinspan: Running, upstream: Upstream) -> None:
    message = {"role": "assistant", "content": "I see.", "reasoning_content": "Hm.", "tool_calls": CALLS[:1]}
    upstream.plays(
        whole(completion(message, "tool_calls")),
        streams(
            chunk({"reasoning_content": "Hm"}),
            chunk({"reasoning_content": "."}),
            chunk({"content": "I "}),
            chunk({"content": "see."}),
            chunk({"tool_calls": [{"index": 0, **CALLS[0]}]}),
            chunk({}, finish_reason="tool_calls"),
            chunk(usage=USAGE),
            "[DONE]",
        ),
    )
    body = {"model": MODEL, "input": "Hi", "tools": [TOOL]}
    once = (await twinspan.rest.post("/v1/responses", json=body)).text
    streamed = await twinspan.rest.post("/v1/responses", json={**body, "stream": True})
    events = [checked_event(event.partition("data: ")[2]) for event in streamed.text.split("\n\n")[:-1]]
    assert [event.split("\n")[0] for event in streamed.text.split("\n\n")[:-1]] == [f"event: {event['type']}" for event in events]
    assert without_ids(checked_response(once)) == without_ids(events[-1]["response"])
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning", "message", "function_call"]


@pytest.mark.parametrize("stream", [True, False])
async def test_functions_are_called_and_their_answers_told(twinspan: Running, upstream: Upstream, stream: bool) -> None:
    first = calls() if stream else whole(completion({"role": "assistant", "content": None, "tool_calls": CALLS}, "tool_calls"))
    upstream.plays(first, says("Sun and rain."))
    async with twinspan.openai() as client:

        async def ask(items: list[Any]) -> Any:
            if not stream:
                return await client.responses.create(model=MODEL, input=items, tools=[TOOL], tool_choice="auto")
            async with client.responses.stream(model=MODEL, input=items, tools=[TOOL], tool_choice="auto") as events:
                return await events.get_final_response()

        items: list[Any] = [{"role": "user", "content": "The weather in Bern and Rome?"}]
        asked = await ask(items)
        made = [item for item in asked.output if item.type == "function_call"]
        assert [(call.name, json.loads(call.arguments)["city"]) for call in made] == [("weather", "Bern"), ("weather", "Rome")]
        for call in made:
            items.append({"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments})
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in made]
        assert (await ask(items)).output_text == "Sun and rain."
    tool = {"type": "function", "function": {name: value for name, value in TOOL.items() if name != "type"}}
    assert [(request.body["tools"], request.body["tool_choice"]) for request in upstream.requests] == [([tool], "auto")] * 2
    assert upstream.requests[1].body["messages"] == [
        {"role": "user", "content": "The weather in Bern and Rome?"},
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        *({"role": "tool", "tool_call_id": call["id"], "content": "sun"} for call in CALLS),
    ]


@pytest.mark.parametrize("reasons", [False, True], ids=["to a provider that takes no reasoning", "to one that does"])
async def test_an_answers_own_items_can_be_sent_back(upstream: Upstream, reasons: bool) -> None:
    """Lesson 24: whole items, always. Lesson 20: what a model thought is told again where it can be."""
    message = {"role": "assistant", "content": "I see.", "reasoning_content": "Hm."}
    upstream.plays(whole(completion(message)), says("Bye."))
    capabilities = {"capabilities": ["stream_options", "reasoning"]} if reasons else {}
    acme = {"base_url": upstream.base_url, "api_key": "k", "models": [MODEL], **capabilities}
    async with running_over(upstream, providers={"acme": acme}) as twinspan, twinspan.openai() as client:
        answer = await client.responses.create(model=MODEL, input="Hi")
        items: Any = [item.to_dict() for item in answer.output]
        await client.responses.create(model=MODEL, input=[*items, {"role": "user", "content": "Bye"}])
    thought = {"reasoning_content": "Hm."} if reasons else {}
    said = [{"role": "assistant", "content": "I see.", **thought}, {"role": "user", "content": "Bye"}]
    assert upstream.requests[1].body["messages"] == said


async def test_a_provider_that_answers_whole_all_the_same_gives_a_stream(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(whole(completion({"role": "assistant", "content": "Hello"})))
    async with twinspan.openai() as client, client.responses.stream(model=MODEL, input="Hi") as stream:
        assert (await stream.get_final_response()).output_text == "Hello"


class Place(BaseModel):
    city: str
    country: str


async def test_structured_answers_are_parsed(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(says('{"city": "Bern", ', '"country": "CH"}'))
    async with twinspan.openai() as client:
        answer = await client.responses.parse(model=MODEL, input="Where?", text_format=Place)
    assert answer.output_parsed == Place(city="Bern", country="CH")
    form = upstream.requests[0].body["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "Place", True)
    assert form["json_schema"]["schema"]["required"] == ["city", "country"]


Reader = Callable[[Running, dict[str, Any]], Awaitable[list[Any]]]


async def over_rest(twinspan: Running, body: dict[str, Any]) -> list[Any]:
    answer = await twinspan.rest.post("/v1/responses", json={**body, "stream": True})
    found = [json.loads(event.partition("data: ")[2]) for event in answer.text.split("\n\n")[:-1]]
    end = found.pop() if "error" in found[-1] else None
    return [*found, end and end["error_kind"]]


async def _over_grpc(twinspan: Running, channel: grpc.aio.Channel, body: dict[str, Any]) -> list[Any]:
    extra = {name: json.dumps(value) for name, value in body.items() if name not in {"model", "input"}}
    request = responses_pb2.ResponsesServiceStreamRequest(
        request=Request(model=body["model"], input=json.dumps(body["input"]), extra=extra)
    )
    found: list[Any] = []
    try:
        async for message in ResponsesServiceStub(channel).Stream(request, metadata=twinspan.metadata, timeout=5):
            found += [json.loads(event.json) for event in message.events]
    except grpc.aio.AioRpcError as error:
        return [*found, errors.of_rpc(error).kind_name]
    return [*found, None]


async def over_network(twinspan: Running, body: dict[str, Any]) -> list[Any]:
    return await _over_grpc(twinspan, twinspan.network, body)


async def in_process(twinspan: Running, body: dict[str, Any]) -> list[Any]:
    return await _over_grpc(twinspan, twinspan.inprocess, body)


def anonymous(value: Any) -> Any:
    """Returns events without what differs from one answer to the next."""
    if isinstance(value, list):
        return [anonymous(item) for item in value]
    if isinstance(value, dict):
        return {
            name: anonymous(inner) for name, inner in value.items() if name not in {"id", "item_id", "created_at", "completed_at"}
        }
    return value


@pytest.mark.parametrize(
    ("script", "last", "error"),
    [
        (calls(), "response.completed", None),
        (streams(chunk({"content": "Hi"}), chunk({}, finish_reason="length"), "[DONE]"), "response.incomplete", None),
        (streams(chunk({"content": "Hi"}), ConnectionError()), "response.failed", "network_error"),
        (streams(chunk({"content": "Hi"}), {"error": {"message": "Overloaded."}}), "response.failed", "provider_error"),
    ],
    ids=["calls", "cut", "broken off", "error in the stream"],
)
async def test_both_surfaces_get_the_same_events_and_spans(
    twinspan: Running, upstream: Upstream, script: Script, last: str, error: str | None
) -> None:
    """Lesson 10: in-band error, never a clean stop."""
    upstream.plays(script)
    body = {"model": MODEL, "input": "Hi", "tools": [TOOL], "temperature": 0.5}
    outcomes: list[Any] = []
    spans: list[Any] = []
    for ask in (over_rest, over_network, in_process):
        *events, end = await ask(twinspan, body)
        assert (events[-1]["type"], end) == (last, error)
        for event in events:
            checked_event(json.dumps(event))
        outcomes.append(anonymous(events))
        spans.append(await core_spans(twinspan))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert spans[0] == spans[1] == spans[2]
    assert twinspan.complaints() == []


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stub_gets_a_whole_response_in_a_typed_message(twinspan: Running, channel: str) -> None:
    request = Request(model=MODEL, input='"Hi"', max_output_tokens=9, instructions="Be brief.")
    answer = await ResponsesServiceStub(getattr(twinspan, channel)).Create(request, metadata=twinspan.metadata, timeout=5)
    (item,) = json.loads(answer.output)
    assert (answer.status, item["content"][0]["text"], answer.usage.total_tokens) == ("completed", "Hello there.", 12)
    assert "error" not in answer.extra  # a null


async def gather(stream: AsyncIterator[Any], seen: list[Any]) -> None:
    async for event in stream:
        seen.append(event)


async def test_the_sdk_raises_the_error_of_a_stream_that_breaks_off(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(streams(chunk({"content": "Hi"}), {"error": {"message": "Overloaded upstream-secret-key.", "code": 429}}))
    seen: list[Any] = []
    async with twinspan.openai() as client:
        stream = await client.responses.create(model=MODEL, input="Hi", stream=True)
        with pytest.raises(openai.APIError, match="Overloaded"):
            await gather(stream, seen)
    failed = seen[-1]
    assert failed.type == "response.failed"
    assert failed.response.error.to_dict() == {"code": "rate_limit_exceeded", "message": "Overloaded [REDACTED]."}


async def test_an_error_before_the_first_event_is_a_true_status(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(text('{"error": {"message": "No."}}', 400, "application/json"))
    async with twinspan.openai() as client:
        for stream in (True, False):
            with pytest.raises(openai.BadRequestError, match="No"):
                await client.responses.create(model=MODEL, input="Hi", stream=stream)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": []}, "input"),
    ],
    ids=str,
)
async def test_what_chat_has_not_is_refused_alike_on_both_surfaces(
    twinspan: Running, upstream: Upstream, change: dict[str, Any], param: str, stream: bool
) -> None:
    body = {"model": MODEL, "input": "Hi", "stream": stream, **change}
    answer = await twinspan.rest.post("/v1/responses", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    request = Request(openai_json=json.dumps(body).encode())
    for channel in (twinspan.network, twinspan.inprocess):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ResponsesServiceStub(channel).Create(request, metadata=twinspan.metadata, timeout=5)
        assert errors.of_rpc(refused.value).kind_name == "invalid_request"
    assert upstream.requests == []
    assert twinspan.complaints() == []


async def core_spans(twinspan: Running) -> Node:
    """Returns the core's part of the only trace, without what differs from one to the next."""
    nodes = await twinspan.spans.trees()
    for node in nodes:
        node.attributes.pop("gen_ai.response.time_to_first_chunk", None)
        nodes += node.children
    (server,) = (node for node in nodes if node.kind == "SERVER" and node.name.startswith("twinspan."))
    return server


async def test_a_client_that_goes_away_ends_the_chat(twinspan: Running, upstream: Upstream) -> None:
    """Lesson 4: cancellation reaches the provider."""
    upstream.plays(streams(chunk({"content": "Hi"}), asyncio.Event()))
    async with twinspan.openai() as client:
        stream = await client.responses.create(model=MODEL, input="Hi", stream=True)
        await anext(stream)
        await stream.close()
    async with asyncio.timeout(2):
        await upstream.requests[0].gone.wait()
    assert twinspan.complaints() == []


async def test_a_client_that_goes_away_before_the_answer_ends_the_chat(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(hangs())
    asking = asyncio.create_task(twinspan.rest.post("/v1/responses", json={"model": MODEL, "input": "Hi"}))
    await upstream.arrived()
    asking.cancel()
    async with asyncio.timeout(2):
        await upstream.requests[0].gone.wait()
    assert twinspan.complaints() == []


async def test_spans_and_metrics_are_those_of_a_response(twinspan: Running) -> None:
    answer = await twinspan.rest.post("/v1/responses", json={"model": MODEL, "input": "Hi"})
    assert answer.status_code == 200
    (operation,) = (await core_spans(twinspan)).children
    assert (operation.name, operation.attributes["gen_ai.operation.name"]) == (f"generate_content {MODEL}", "generate_content")
    assert (operation.attributes["gen_ai.usage.input_tokens"], operation.attributes["gen_ai.usage.output_tokens"]) == (9, 3)
    (attempt,) = operation.children
    assert str(attempt.attributes["url.full"]).endswith("/v1/chat/completions")
    lines = (await twinspan.rest.get("/metrics")).text.splitlines()
    counted = [line.rpartition(" ")[2] for line in lines if line.startswith("twinspan_tokens_total{") and MODEL in line]
    assert sorted(counted) == ["3.0", "9.0"]


NATIVE = {
    "id": "resp_n",
    "object": "response",
    "created_at": 7,
    "model": "m",
    "status": "completed",
    "output": [],
    "usage": None,
}


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    async with Upstream() as started:
        yield started


@pytest.fixture
async def mixed(upstream: Upstream, other: Upstream) -> AsyncIterator[Running]:
    """Runs a gateway over a provider with the Responses API and one with chat alone, with agents of both and one of the latter."""
    native = {"base_url": upstream.base_url, "api_key": "k", "models": ["n"], "capabilities": ["stream_options", "responses"]}
    plain = {"base_url": other.base_url, "api_key": "k", "models": ["p", "q"]}
    agents = {
        "both": {"strategy": "fallback", "models": ["n", "p"], "system_prompt": "I am an agent."},
        "back": {"strategy": "fallback", "models": ["p", "n"], "system_prompt": "I am an agent.", "force_system_prompt": True},
        "chats": {"strategy": "fallback", "models": ["p", "q"]},
    }
    async with running_over(upstream, providers={"native": native, "plain": plain}, agents=agents) as started:
        yield started


DOWN: Sequence[Script] = (text("{}", 503, "application/json"),)


async def test_an_agent_falls_back_from_a_native_target_to_one_with_chat(
    mixed: Running, upstream: Upstream, other: Upstream
) -> None:
    upstream.plays(*DOWN)
    async with mixed.openai() as client:
        raw = await client.responses.with_raw_response.create(model="both", input="Hi", instructions="Be brief.")
        stream = await client.responses.create(model="both", input="Hi", stream=True)
        events = [event async for event in stream]
    assert raw.parse().output_text == "Hello there."
    assert (raw.headers["X-Twinspan-Provider"], raw.headers["X-Twinspan-Attempts"]) == ("plain", "2")
    assert events[-1].type == "response.completed"
    system = {"role": "system", "content": "I am an agent."}
    user = {"role": "user", "content": "Hi"}
    assert upstream.requests[0].body == {"model": "n", "instructions": "Be brief.", "input": [system, user]}
    assert other.requests[0].body["messages"] == [system, {"role": "system", "content": "Be brief."}, user]
    assert raw.parse().instructions == "Be brief."


async def test_an_agent_falls_back_from_a_target_with_chat_to_a_native_one(
    mixed: Running, upstream: Upstream, other: Upstream
) -> None:
    completed = {"type": "response.completed", "sequence_number": 0, "response": NATIVE}
    upstream.plays(whole(NATIVE), streams(completed))
    other.plays(*DOWN)
    async with mixed.openai() as client:
        answer = await client.responses.create(model="back", input="Hi", instructions="Be brief.")
        stream = await client.responses.create(model="back", input="Hi", stream=True)
        events = [event.type async for event in stream]
    assert (answer.id, events) == ("resp_n", ["response.completed"])
    system = {"role": "system", "content": "I am an agent."}
    assert other.requests[0].body["messages"] == [system, {"role": "user", "content": "Hi"}]
    assert upstream.requests[0].body == {"model": "n", "input": [system, {"role": "user", "content": "Hi"}]}


async def test_a_tool_that_only_a_native_target_has_goes_there(mixed: Running, upstream: Upstream, other: Upstream) -> None:
    upstream.plays(whole(NATIVE))
    async with mixed.openai() as client:
        answer = await client.responses.create(model="back", input="Hi", tools=[{"type": "web_search"}])
    assert (answer.id, other.requests) == ("resp_n", [])


async def test_what_no_target_has_is_the_requests_own_fault(mixed: Running, other: Upstream) -> None:
    async with mixed.openai() as client:
        with pytest.raises(openai.BadRequestError, match="web_search"):
            await client.responses.create(model="chats", input="Hi", tools=[{"type": "web_search"}])
    assert other.requests == []
