"""Speech: JSON in, bytes out as they come."""

import asyncio
import json
from typing import Any

import grpc
import httpx
import pytest
from aiohttp import web
from twinspan.v1 import audio_pb2
from twinspan.v1.audio_pb2_grpc import AudioServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running
from tests.flows.upstream import MODEL, Request, Script, Upstream, text


def speaks(*pieces: bytes | asyncio.Event | ConnectionError) -> Script:
    async def script(http: web.BaseRequest, _request: Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
        await response.prepare(http)
        for piece in pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif isinstance(piece, bytes):
                await response.write(piece)
            else:
                assert http.transport is not None
                http.transport.abort()
                await asyncio.Event().wait()
        return response

    return script


async def test_the_official_sdk_gets_audio_as_it_comes(twinspan: Running, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.plays(speaks(b"\x00one", go_on, b"\xfftwo"))
    async with twinspan.openai() as client:
        speech = client.audio.speech.with_streaming_response
        async with speech.create(model=MODEL, voice="alloy", input="Hello.", extra_body={"x_request": 1}) as answer:
            assert answer.headers["Content-Type"] == "audio/mpeg"
            assert answer.headers["X-Twinspan-Model"] == MODEL
            pieces = answer.iter_bytes()
            assert await anext(pieces) == b"\x00one"
            go_on.set()
            assert [piece async for piece in pieces] == [b"\xfftwo"]
    asked = {"model": MODEL, "voice": "alloy", "input": "Hello.", "x_request": 1}
    assert (upstream.requests[0].path, upstream.requests[0].body) == ("/v1/audio/speech", asked)
    assert twinspan.complaints() == []


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stub_gets_the_same_bytes(twinspan: Running, upstream: Upstream, channel: str) -> None:
    upstream.plays(speaks(b"one", b"two"))
    request = audio_pb2.SpeakRequest(model=MODEL, input="Hello.", voice="alloy", speed=1.5)
    call = AudioServiceStub(getattr(twinspan, channel)).Speak(request, metadata=twinspan.metadata, timeout=5)
    messages = [message async for message in call]
    assert messages[0].content_type == "audio/mpeg"
    assert b"".join(message.content for message in messages) == b"onetwo"
    assert dict(await call.trailing_metadata())["x-twinspan-provider"] == "acme"
    assert upstream.requests[0].body == {"model": MODEL, "input": "Hello.", "voice": "alloy", "speed": 1.5}


async def test_audio_that_breaks_off_is_not_passed_for_whole(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(speaks(b"one", ConnectionError()))
    with pytest.raises(httpx.RemoteProtocolError):
        await twinspan.rest.post("/v1/audio/speech", json={"model": MODEL, "input": "a"})
    assert twinspan.complaints() == []


@pytest.mark.parametrize("change", [{"input": None}, {"input": 7}, {"speed": "fast"}], ids=str)
async def test_bad_input_has_the_same_answer_on_both_surfaces(
    twinspan: Running, upstream: Upstream, change: dict[str, Any]
) -> None:
    body = {"model": MODEL, "input": "a", **change}
    answer = await twinspan.rest.post("/v1/audio/speech", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(change)))
    request = audio_pb2.SpeakRequest(openai_json=json.dumps(body).encode())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await AudioServiceStub(twinspan.network).Speak(request, metadata=twinspan.metadata, timeout=5).read()
    assert errors.of_rpc(raised.value).message == answer.json()["error"]["message"]
    assert upstream.requests == []


async def test_nothing_is_spoken_twice(upstream: Upstream) -> None:
    upstream.plays(text("", 500))
    async with running(configuration(upstream.base_url, agents={"voice": {"models": [MODEL], "max_retries": 2}})) as twinspan:
        answer = await twinspan.rest.post("/v1/audio/speech", json={"model": "voice", "input": "a"})
    assert (answer.status_code, len(upstream.requests)) == (502, 1)
