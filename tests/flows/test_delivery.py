"""How an answer is delivered over REST: whole or as a stream, with comments in its silences, to pages of other origins or not."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from tests.flows.running import Running, running_over
from tests.flows.upstream import MODEL, Request, Upstream, chunk, says, streams

HELLO: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
LISTEN: dict[str, Any] = {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "log_level": "warning", "drain_seconds": 1}


@pytest.mark.parametrize("default", [True, False], ids=["streams by default", "whole by default"])
@pytest.mark.parametrize(
    ("stream", "accept", "streamed"),
    [
        (True, "application/json", True),
        (False, "text/event-stream", False),
        (None, "application/json", False),
        (None, "text/event-stream", True),
        (None, "application/json, text/event-stream", True),
        (None, "*/*", None),
        (None, "", None),
    ],
)
async def test_the_body_decides_then_accept_then_the_configuration(
    upstream: Upstream, default: bool, stream: bool | None, accept: str, streamed: bool | None
) -> None:
    async with running_over(upstream, server={**LISTEN, "stream_default": default}) as twinspan:
        body = HELLO if stream is None else {**HELLO, "stream": stream}
        response = await twinspan.chat(body, Accept=accept)
        is_stream = response.headers["Content-Type"].startswith("text/event-stream")
        assert is_stream is (default if streamed is None else streamed)
        assert upstream.requests[0].body.get("stream", False) is is_stream


async def test_a_silent_stream_gets_comments(upstream: Upstream) -> None:
    more = asyncio.Event()
    upstream.plays(streams(chunk({"content": "Hi"}), more, chunk({}, finish_reason="stop"), "[DONE]"))
    async with running_over(upstream, server={**LISTEN, "keepalive_seconds": 0.01}) as twinspan:
        seen: list[str] = []
        async with twinspan.rest.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as response:
            async for line in response.aiter_lines():
                seen.append(line)
                if seen.count(": keep-alive") == 3:
                    more.set()
    assert '"Hi"' in seen[0]
    assert seen[-2:] == ["data: [DONE]", ""]


async def test_pages_of_allowed_origins_may_call_and_others_may_not(upstream: Upstream) -> None:
    async with running_over(upstream, server={**LISTEN, "cors_origins": ["https://app.example"]}) as twinspan:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        allowed = await twinspan.rest.options("/v1/chat/completions", headers={"Origin": "https://app.example", **asked})
        assert allowed.status_code == 204
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert allowed.headers["Access-Control-Allow-Headers"] == "authorization"
        other = await twinspan.rest.options("/v1/chat/completions", headers={"Origin": "https://evil.example", **asked})
        assert "Access-Control-Allow-Origin" not in other.headers
        response = await twinspan.chat({**HELLO, "stream": False}, Origin="https://app.example")
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_sane_request_id_is_kept_and_another_is_replaced(twinspan: Running, stream: bool) -> None:
    kept = await twinspan.chat({**HELLO, "stream": stream}, **{"X-Request-Id": "my-id.1"})
    assert kept.headers["X-Request-Id"] == "my-id.1"
    for strange in ("no blanks please", "x" * 200, "a<b>"):
        replaced = await twinspan.chat({**HELLO, "stream": stream}, **{"X-Request-Id": strange})
        assert replaced.headers["X-Request-Id"].startswith("req_")


async def test_many_streams_at_once_do_not_mix(upstream: Upstream, twinspan: Running) -> None:
    async def echo(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        return await says(*request.body["user"])(http, request)

    async def ask(number: int) -> str:
        answer = await twinspan.chat({**HELLO, "stream": True, "user": f"user-{number}"})
        events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line.startswith("data: {")]
        return "".join(event["choices"][0]["delta"].get("content", "") for event in events)

    upstream.plays(echo)
    assert await asyncio.gather(*map(ask, range(50))) == [f"user-{number}" for number in range(50)]


async def test_metrics_and_stats_count_what_happened(twinspan: Running) -> None:
    await twinspan.chat({**HELLO, "stream": True})
    await twinspan.chat({**HELLO, "model": "nobody", "stream": False})
    del twinspan.rest.headers["Authorization"]
    metrics = (await twinspan.rest.get("/metrics")).text
    for line in (
        'twinspan_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0',
        'twinspan_http_requests_total{method="POST",route="/v1/chat/completions",status="404"} 1.0',
        f'twinspan_upstream_requests_total{{agent="",model="{MODEL}",provider="acme"}} 1.0',
        f'twinspan_tokens_total{{agent="",direction="output",model="{MODEL}",provider="acme"}} 3.0',
        'twinspan_errors_total{kind="model_not_found",provider=""} 1.0',
    ):
        assert line in metrics, line
    openmetrics = await twinspan.rest.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert "# EOF" in openmetrics.text
    assert 'trace_id="' in openmetrics.text
    (model,) = (await twinspan.rest.get("/statsz")).json()["models"]
    assert (model["model"], model["provider"], int(model["requests"]), int(model["output_tokens"])) == (MODEL, "acme", 1, 3)
