"""The official OpenAI SDK, pointed at the gateway and otherwise used as always."""

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.flows.running import Running
from tests.flows.upstream import MODEL, USAGE, Upstream, chunk, completion, says, streams, whole

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "strict": True, "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture
async def sdk(twinspan: Running) -> Any:
    async with twinspan.openai() as client:
        yield client


async def test_a_whole_answer(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.choices[0].message.content == "Hello there."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12


async def test_a_stream_shows_its_usage_only_if_asked(sdk: AsyncOpenAI, upstream: Upstream) -> None:
    for asked in (False, True):
        options: Any = {"stream_options": {"include_usage": True}} if asked else {}
        chunks = [item async for item in await sdk.chat.completions.create(model=MODEL, messages=HELLO, stream=True, **options)]
        assert "".join(item.choices[0].delta.content or "" for item in chunks if item.choices) == "Hello there."
        assert [item.usage.total_tokens for item in chunks if item.usage] == ([12] if asked else [])
        assert upstream.requests[-1].body["stream_options"]["include_usage"] is True


async def test_headers_are_there_with_raw_responses(sdk: AsyncOpenAI) -> None:
    raw = await sdk.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    assert raw.headers["x-twinspan-provider"] == "acme"
    assert raw.headers["x-twinspan-model"] == MODEL
    assert raw.headers["x-twinspan-cache-status"] == "BYPASS"
    assert raw.request_id == raw.headers["x-request-id"]
    assert raw.parse().choices[0].message.content == "Hello there."


async def test_the_sdks_stream_helper_puts_split_tool_calls_together(sdk: AsyncOpenAI, upstream: Upstream) -> None:
    pieces = ['{"ci', 'ty": "Z', 'ürich"}']
    upstream.plays(
        streams(
            chunk({"role": "assistant", "content": None}),
            chunk({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}]}),
            *(chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces),
            chunk(
                {"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]}
            ),
            chunk({}, finish_reason="tool_calls"),
            chunk(usage=USAGE),
            "[DONE]",
        )
    )
    async with sdk.chat.completions.stream(model=MODEL, messages=HELLO, tools=[WEATHER]) as stream:
        answer = await stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [(call.id, json.loads(call.function.arguments)) for call in calls] == [("c1", {"city": "Zürich"}), ("c2", {})]
    assert upstream.requests[0].body["tools"] == [WEATHER]


async def test_a_conversation_with_tools_reaches_the_provider_as_it_was(sdk: AsyncOpenAI, upstream: Upstream) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "data:,x"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Sunny."},
    ]
    fields: dict[str, Any] = {
        "temperature": 0.25,
        "top_p": 0.5,
        "n": 1,
        "stop": ["a", "b"],
        "seed": 7,
        "logit_bias": {"50256": -100},
        "metadata": {"k": "v"},
        "service_tier": "auto",
        "store": False,
        "user": "u",
        "max_completion_tokens": 20,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True}},
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
    }
    await sdk.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], **fields, extra_body={"x_own": {"deep": [1, None]}}
    )
    sent = upstream.requests[0].body
    assert sent == {"model": MODEL, "messages": messages, "tools": [WEATHER], **fields, "x_own": {"deep": [1, None]}}


async def test_structured_answers_are_parsed(sdk: AsyncOpenAI, upstream: Upstream) -> None:
    class City(BaseModel):
        name: str

    upstream.plays(whole(completion({"role": "assistant", "content": '{"name": "Bern"}'})))
    answer = await sdk.chat.completions.parse(model=MODEL, messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Bern")


async def test_models_are_listed_and_found(sdk: AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == [MODEL]
    assert (await sdk.models.retrieve(MODEL)).owned_by == "acme"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (400, {}, openai.BadRequestError),
        (403, {}, openai.PermissionDeniedError),
        (404, {}, openai.NotFoundError),
        (409, {}, openai.ConflictError),
        (422, {}, openai.UnprocessableEntityError),
        (429, {"Retry_After": "3"}, openai.RateLimitError),
        (500, {}, openai.InternalServerError),
    ],
)
async def test_the_providers_error_is_the_sdks_error(
    sdk: AsyncOpenAI, upstream: Upstream, status: int, headers: dict[str, str], error: type[openai.APIStatusError], stream: bool
) -> None:
    details = {"message": "No, because.", "type": "some_type", "param": "messages", "code": "some_code"}
    upstream.plays(whole({"error": details}, status, **headers))
    with pytest.raises(error, match="No, because") as raised:
        await sdk.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
    assert raised.value.request_id
    if status < 500:
        assert (raised.value.type, raised.value.param, raised.value.code) == ("some_type", "messages", "some_code")
    if "Retry_After" in headers:
        assert raised.value.response.headers["Retry-After"] == "3"


async def test_a_wrong_key_is_an_authentication_error(twinspan: Running) -> None:
    async with twinspan.openai(token="ts-a-wrong-key-of-the-tests") as sdk:
        with pytest.raises(openai.AuthenticationError, match="credential"):
            await sdk.chat.completions.create(model=MODEL, messages=HELLO)


async def test_a_wrong_model_is_not_found(sdk: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/models"):
        await sdk.chat.completions.create(model="nobody", messages=HELLO)


async def test_an_error_in_mid_stream_is_raised_by_the_sdk(sdk: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.plays(streams(chunk({"content": "Hi"}), {"error": {"message": "The server is overloaded.", "type": "server_error"}}))
    stream = await sdk.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="overloaded"):
        async for _ in stream:
            pass


async def test_a_synchronous_client_works_too(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(says("Hel", "lo"))

    def ask() -> str:
        with openai.OpenAI(base_url=f"{twinspan.url}/v1", api_key=twinspan.metadata[0][1][7:], max_retries=0) as client:
            stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            return "".join(item.choices[0].delta.content or "" for item in stream if item.choices)

    assert await asyncio.to_thread(ask) == "Hello"
