"""Both surfaces are one gateway: each case is asked over REST, over the in-process channel and over gRPC on the network.

What is compared is all that a client gets (events or the whole answer, usage, error, facts about the answer) and the spans of the
core. gRPC's messages are compared in the form in which REST shows them, so that nothing is left out of the comparison.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from twinspan.v1 import chat_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from bridge import errors
from bridge.dialects.openai_chat import response as whole_dialect
from bridge.dialects.openai_chat.request import ChatBody
from bridge.dialects.openai_chat.stream import StreamRenderer
from tests.flows.running import Running
from tests.flows.upstream import MODEL, USAGE, Script, Upstream, chunk, completion, says, streams, text, whole
from tests.gateway.telemetry.trees import Node

HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@dataclass
class Outcome:
    """What one request came to, in the form of REST."""

    answer: list[Any] = field(default_factory=list)
    error: str | None = None
    message: str | None = None
    param: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    spans: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """A request, and what the provider answers to it."""

    name: str
    body: Mapping[str, Any]
    script: Script
    error: str | None = None


def call(index: int, **fields: Any) -> dict[str, Any]:
    return {"index": index, **fields}


STREAMED = [
    Case("a text in pieces", HELLO, says("Hel", "lo ", "wörld 🌍")),
    Case("a text with usage asked for", {**HELLO, "stream_options": {"include_usage": True}}, says("Hello")),
    Case(
        "two choices at once",
        {**HELLO, "n": 2},
        streams(
            chunk({"role": "assistant"}),
            chunk({"role": "assistant"}, index=1),
            chunk({"content": "one"}),
            chunk({"content": "two"}, index=1),
            chunk({}, finish_reason="stop"),
            chunk({}, index=1, finish_reason="length"),
            chunk(usage=USAGE),
            "[DONE]",
        ),
    ),
    Case(
        "parallel tool calls whose arguments are split anywhere",
        {**HELLO, "tools": [WEATHER], "tool_choice": "auto", "parallel_tool_calls": True},
        streams(
            chunk({"role": "assistant", "content": None}),
            chunk({"tool_calls": [call(0, id="c1", type="function", function={"name": "weather", "arguments": ""})]}),
            chunk({"tool_calls": [call(1, id="c2", type="function", function={"name": "weather", "arguments": '{"ci'})]}),
            chunk({"tool_calls": [call(0, function={"arguments": '{"city": "Z\\u'}), call(1, function={"arguments": 'ty": "'})]}),
            chunk({"tool_calls": [call(0, function={"arguments": '00fcrich"}'}), call(1, function={"arguments": 'Bern"}'})]}),
            chunk({}, finish_reason="tool_calls"),
            "[DONE]",
        ),
    ),
    Case(
        "a call of the older functions interface",
        {**HELLO, "functions": [{"name": "weather", "parameters": {}}], "function_call": "auto"},
        streams(
            chunk({"role": "assistant", "function_call": {"name": "weather", "arguments": ""}}),
            chunk({"function_call": {"arguments": "{}"}}),
            chunk({}, finish_reason="function_call"),
            "[DONE]",
        ),
    ),
    Case(
        "log probabilities",
        {**HELLO, "logprobs": True, "top_logprobs": 1},
        streams(
            chunk(
                choices=[
                    {
                        "index": 0,
                        "delta": {"content": "Hi"},
                        "logprobs": {"content": [{"token": "Hi", "logprob": -0.10, "bytes": [72, 105], "top_logprobs": []}]},
                        "finish_reason": None,
                    }
                ]
            ),
            chunk({}, finish_reason="stop"),
            "[DONE]",
        ),
    ),
    Case(
        "a refusal",
        HELLO,
        streams(chunk({"refusal": "I "}), chunk({"refusal": "won't."}), chunk({}, finish_reason="stop"), "[DONE]"),
    ),
    Case(
        "reasoning before the answer",
        {**HELLO, "reasoning_effort": "low"},
        streams(chunk({"reasoning_content": "Hm."}), chunk({"content": "Yes."}), chunk({}, finish_reason="stop"), "[DONE]"),
    ),
    Case(
        "fields that nobody knows, at every level",
        {**HELLO, "top_k": 4, "x_request": {"a": [1, 2.50]}},
        streams(
            chunk({"role": "assistant", "content": "", "x_delta": {"b": None}}, x_chunk=[True]),
            chunk(choices=[{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None, "x_choice": "c"}]),
            chunk({"tool_calls": [call(0, id="c1", function={"name": "f", "arguments": "", "x_function": 1}, x_call=2)]}),
            chunk({}, finish_reason="a_new_reason"),
            chunk(usage={**USAGE, "x_usage": 1, "prompt_tokens_details": {"cached_tokens": 2, "x_detail": 3}}),
            "[DONE]",
        ),
    ),
    Case(
        "chunks without choices",
        HELLO,
        streams(
            chunk(prompt_filter_results=[{"prompt_index": 0}]), chunk({"content": "Hi"}), chunk({}, finish_reason="stop"), "[DONE]"
        ),
    ),
    Case("an end without [DONE]", HELLO, streams(chunk({"content": "Hi"}), chunk({}, finish_reason="stop"))),
    Case(
        "an error in the middle",
        HELLO,
        streams(chunk({"content": "Hi"}), {"error": {"message": "The server is overloaded.", "type": "server_error"}}),
        "provider_error",
    ),
    Case("a connection that breaks in the middle", HELLO, streams(chunk({"content": "Hi"}), ConnectionError()), "network_error"),
    Case("garbage in the middle", HELLO, streams(chunk({"content": "Hi"}), "{not json"), "provider_error"),
    Case("a stream without any output", HELLO, streams("[DONE]"), "provider_error"),
]
WHOLE = [
    Case("a text", HELLO, says("Hello")),
    Case(
        "a text in every detail as OpenAI gives it",
        HELLO,
        whole(
            completion(
                {"role": "assistant", "content": "Grüezi", "refusal": None, "annotations": []},
                usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0}},
                service_tier="default",
                system_fingerprint="fp",
            )
        ),
    ),
    Case(
        "tool calls, reasoning and unknown fields",
        {**HELLO, "tools": [WEATHER]},
        whole(
            completion(
                {
                    "role": "assistant",
                    "content": None,
                    "reasoning_content": "Hm.",
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
                            "x_call": 1,
                        }
                    ],
                    "x_message": {"deep": [1]},
                },
                "tool_calls",
                system_fingerprint="fp",
                service_tier="default",
                x_answer=1,
            )
        ),
    ),
    Case(
        "two choices",
        {**HELLO, "n": 2},
        whole(
            {
                **completion({"role": "assistant", "content": "one"}),
                "choices": [
                    {"index": number, "message": {"role": "assistant", "content": word}, "finish_reason": "stop"}
                    for number, word in enumerate(("one", "two"))
                ],
            }
        ),
    ),
]
REFUSED = [
    Case("no model", {"messages": HELLO["messages"]}, says("-"), "invalid_request"),
    Case("an unknown model", {**HELLO, "model": "nobody"}, says("-"), "model_not_found"),
    Case("a model name of 257 characters", {**HELLO, "model": "m" * 257}, says("-"), "invalid_request"),
    Case("no messages", {"model": MODEL, "messages": []}, says("-"), "invalid_request"),
    Case(
        "a refusal by the provider",
        HELLO,
        whole({"error": {"message": "Too long.", "type": "invalid_request_error", "param": "messages", "code": "too_long"}}, 400),
        "invalid_request",
    ),
    Case(
        "a context that is too long",
        HELLO,
        whole({"error": {"message": "Too many tokens.", "code": "context_length_exceeded"}}, 400),
        "context_exceeded",
    ),
    Case(
        "a context that is too long, as llama.cpp says it",
        HELLO,
        whole({"error": {"code": 400, "message": "Too many tokens.", "type": "exceed_context_size_error", "n_ctx": 4096}}, 400),
        "context_exceeded",
    ),
    Case("a rate limit", HELLO, whole({"error": {"message": "Slow down."}}, 429, Retry_After="0.0001"), "rate_limited"),
    Case("the provider's own trouble", HELLO, text("<html>Internal Server Error</html>", 500), "provider_error"),
    Case("a wrong key at the provider", HELLO, whole({"error": {"message": "Bad key upstream-secret-key."}}, 401), "auth_failed"),
    Case("a page where JSON should be", HELLO, text("<html>Welcome</html>"), "provider_error"),
]

Ask = Callable[[Running, Mapping[str, Any], bool], Awaitable[Outcome]]


async def over_rest(twinspan: Running, body: Mapping[str, Any], stream: bool) -> Outcome:
    outcome = Outcome()
    answer = await twinspan.chat({**body, "stream": stream})
    if answer.headers["Content-Type"].startswith("text/event-stream"):
        events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        assert events.pop() == "[DONE]"
        received = [json.loads(event) for event in events]
    else:
        received = [answer.json()]
    for event in received:
        if "error" in event:
            outcome.error, outcome.message = event["error_kind"], event["error"]["message"]
            outcome.param = event["error"]["param"]
        else:
            outcome.answer.append(event)
    outcome.facts = {name.lower(): value for name, value in answer.headers.items() if name.lower().startswith("x-twinspan-")}
    return outcome


async def _over_grpc(twinspan: Running, channel: grpc.aio.Channel, body: Mapping[str, Any], stream: bool) -> Outcome:
    outcome = Outcome()
    stub = ChatServiceStub(channel)
    asked = ChatBody(json.dumps(body).encode())
    under_way: Any
    try:
        if stream:
            request = chat_pb2.StreamRequest()
            asked.fill(request.chat)
            renderer = StreamRenderer(include_usage=asked.include_usage)
            under_way = stub.Stream(request, metadata=twinspan.metadata, timeout=5)
            async for message in under_way:
                shown = renderer.render(message).decode()
                outcome.answer += [json.loads(event.removeprefix("data: ")) for event in shown.split("\n\n") if event]
        else:
            whole_request = chat_pb2.CompleteRequest()
            asked.fill(whole_request.chat)
            under_way = stub.Complete(whole_request, metadata=twinspan.metadata, timeout=5)
            outcome.answer = [json.loads(whole_dialect.render(await under_way))]
    except grpc.aio.AioRpcError as error:
        failure = errors.of_rpc(error)
        outcome.error, outcome.message, outcome.param = failure.kind_name, failure.message, failure.param
    trailers = await under_way.trailing_metadata()
    outcome.facts = {key: value for key, value in trailers if key.startswith("x-twinspan-")}
    return outcome


async def over_the_inprocess_channel(twinspan: Running, body: Mapping[str, Any], stream: bool) -> Outcome:
    return await _over_grpc(twinspan, twinspan.inprocess, body, stream)


async def over_the_network(twinspan: Running, body: Mapping[str, Any], stream: bool) -> Outcome:
    return await _over_grpc(twinspan, twinspan.network, body, stream)


def names(node: Node) -> list[Any]:
    """Returns the names and statuses of a tree of spans, from the core's own span down."""
    while node.name.startswith("POST") or (node.kind == "CLIENT" and node.name.startswith("twinspan.v1.")):
        (node,) = node.children
    return _names(node)


def _names(node: Node) -> list[Any]:
    return [node.name, node.status, *map(_names, node.children)]


async def ask_everywhere(twinspan: Running, upstream: Upstream, case: Case, *, stream: bool) -> dict[str, Outcome]:
    outcomes = {}
    for ask in (over_rest, over_the_inprocess_channel, over_the_network):
        upstream.plays(case.script)
        outcome = await ask(twinspan, case.body, stream)
        outcome.spans = [names(tree) for tree in await twinspan.spans.trees()]
        outcomes[ask.__name__] = outcome
    return outcomes


def assert_alike(outcomes: Mapping[str, Outcome], case: Case) -> None:
    expected, *others = outcomes.values()
    assert "upstream-secret-key" not in repr(outcomes)
    assert expected.error == case.error
    for other in others:
        assert other == expected


@pytest.mark.parametrize("case", STREAMED, ids=lambda case: case.name)
async def test_a_stream_is_the_same_on_every_surface(twinspan: Running, upstream: Upstream, case: Case) -> None:
    assert_alike(await ask_everywhere(twinspan, upstream, case, stream=True), case)


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
async def test_a_whole_answer_is_the_same_on_every_surface(twinspan: Running, upstream: Upstream, case: Case) -> None:
    assert_alike(await ask_everywhere(twinspan, upstream, case, stream=False), case)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
async def test_a_refusal_is_the_same_on_every_surface(twinspan: Running, upstream: Upstream, case: Case, stream: bool) -> None:
    assert_alike(await ask_everywhere(twinspan, upstream, case, stream=stream), case)
