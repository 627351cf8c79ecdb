"""What the embedded model answers, over HTTP as the gateway asks it."""

import asyncio
import json
import subprocess
import sys

import httpx
import pytest

from gateway.local.engine import LocalEndpoint, LocalEngine
from gateway.local.orders import Orders
from gateway.local.worker import parameters
from tests.gateway.local.watching import ask, client_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_it_answers_a_chat_under_its_own_name(client: httpx.AsyncClient, endpoint: LocalEndpoint) -> None:
    answer = (await client.post("/chat/completions", json=ask("Say hello.", model="another name", max_tokens=5))).json()

    assert answer["model"] == endpoint.models[0] == "smollm2-135m-instruct"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["prompt_tokens"] > answer["usage"]["completion_tokens"] > 0


async def test_it_streams_chunks_and_counts_the_tokens_at_the_end(client: httpx.AsyncClient) -> None:
    request = ask("Say hello.", stream=True, stream_options={"include_usage": True}, max_tokens=5, temperature=0)
    async with client.stream("POST", "/chat/completions", json=request) as answer:
        data = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line]

    assert data.pop() == "[DONE]"
    *chunks, last = [json.loads(piece) for piece in data]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert "hello" in text.lower()
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 5)


async def test_it_answers_in_the_form_of_a_json_schema(client: httpx.AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
        "required": ["colour", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "thing", "strict": True, "schema": schema}}
    answer = (await client.post("/chat/completions", json=ask("Describe a car.", response_format=form, max_tokens=100))).json()

    made = json.loads(answer["choices"][0]["message"]["content"])
    assert set(made) == {"colour", "age"}
    assert made["colour"] in {"red", "green"}
    assert 0 <= made["age"] <= 120


async def test_it_tells_how_likely_each_token_was(client: httpx.AsyncClient) -> None:
    request = ask("Say hello.", logprobs=True, top_logprobs=2, max_tokens=2, temperature=0)
    answer = (await client.post("/chat/completions", json=request)).json()

    tokens = answer["choices"][0]["logprobs"]["content"]
    assert [(len(token["top_logprobs"]), token["logprob"] <= 0) for token in tokens] == [(2, True), (2, True)]


@pytest.mark.parametrize("key", ["", "Basic wrong", "Bearer wrong"])
async def test_it_answers_nobody_without_its_key(endpoint: LocalEndpoint, key: str) -> None:
    async with httpx.AsyncClient(headers={"Authorization": key, "Connection": "close"}) as stranger:
        answer = await stranger.post(f"{endpoint.base_url}/chat/completions", json=ask("Say hello.", max_tokens=1))

    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")


async def test_a_prompt_beyond_the_context_is_refused_with_its_size(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat/completions", json=ask("word " * 5000))

    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", 4096)


async def test_requests_that_fill_their_context_do_not_break_each_other() -> None:
    engine = LocalEngine(slots=2, context_tokens=256)
    endless = ask("word " * 210, ignore_eos=True)
    async with client_of(await engine.start()) as client:
        answers = await asyncio.gather(*(client.post("/chat/completions", json=endless) for _ in range(2)))
    await engine.stop()

    ends = [(answer.json()["choices"][0]["finish_reason"], answer.json()["usage"]["total_tokens"]) for answer in answers]
    assert ends == [("length", 256), ("length", 256)]


async def test_answered_prompts_are_not_collected_in_memory() -> None:
    """By default the engine keeps up to 8 GiB of them."""
    assert parameters(Orders("", "", slots=1, context_tokens=256, threads=1, api_key="")).cache_ram_mib == 0


async def test_the_worker_loads_nothing_of_the_gateway_but_its_orders() -> None:
    program = "import sys, gateway.local.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)

    loaded = {name for name in done.stdout.split() if name.startswith(("gateway", "grpc", "aiohttp", "asyncio", "google"))}
    assert loaded == {"gateway", "gateway.local", "gateway.local.orders", "gateway.local.worker"}
