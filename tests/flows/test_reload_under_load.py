"""A reload while the gateway is busy: nothing that is under way notices, and nothing that was counted is lost."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from aiohttp import web
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from tests.flows.commands import started
from tests.flows.running import TOKEN, Running, configuration, running_from
from tests.flows.upstream import MODEL, USAGE, Request, Script, Upstream, chunk, says, streams, text
from tests.waiting import until

STREAMS, SWAPS, NEW = 200, 50, 4
CROWDED, THRIFTY, LEAVER = "ts-the-key-of-the-streams", "ts-the-key-with-few-tokens", "ts-the-key-that-will-go"
TPM = 600
USED = {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300}
WORDS = [f"{number} " for number in range(10)]
HELLO = [{"role": "user", "content": "Hello"}]


class Load:
    """A provider whose streams go on word by word, when the test says so, and a gateway on a file over it."""

    def __init__(self, path: Path, upstream: Upstream, broken: Upstream) -> None:
        self.path = path
        self.upstream = upstream
        self.broken = broken
        self.ticks = [asyncio.Event() for _ in WORDS]

    def script(self) -> Script:
        gated = [item for tick, word in zip(self.ticks, WORDS, strict=True) for item in (tick, chunk({"content": word}))]
        slow = streams(chunk({"role": "assistant"}), *gated, chunk({}, finish_reason="stop"), chunk(usage=USAGE), "[DONE]")

        async def play(http: web.BaseRequest, request: Request) -> web.StreamResponse:
            return await (slow if request.body.get("stream") else says("Hello.", usage=USED))(http, request)

        return play

    def write(self, **changes: Any) -> None:
        """Writes the configuration, in which sections replace those that stand here."""
        sections = configuration(
            "",
            providers={
                "acme": {"base_url": self.upstream.base_url, "api_key": "secret-of-the-provider", "models": [MODEL, "model-2"]},
                "broken": {"base_url": self.broken.base_url, "api_key": "secret-of-the-provider", "models": ["model-3"]},
            },
            agents={
                "careful": {"models": ["model-3", MODEL], "failure_threshold": 1, "cooldown_seconds": 3600},
                "turns": {"strategy": "round-robin", "models": [MODEL, "model-2"]},
            },
            api_keys=[
                {"name": "crowded", "token": CROWDED, "max_parallel": STREAMS},
                {"name": "thrifty", "token": THRIFTY, "tpm": TPM},
                {"name": "leaver", "token": LEAVER, "rpm": 100},
            ],
        )
        self.put(json.dumps({**sections, **changes}))

    def put(self, written: str) -> None:
        self.path.write_text(written)
        self.path.chmod(0o600)


@pytest.fixture
async def load(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Load]:
    async with Upstream() as broken:
        made = Load(tmp_path / "twinspan.json", upstream, broken)
        upstream.plays(made.script())
        broken.plays(text("<html>", 500))
        made.write()
        yield made


@asynccontextmanager
async def many(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Gives a client of as many connections as one likes."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=20) as client:
        yield client


async def streamed(client: httpx.AsyncClient, token: str, model: str, begun: "asyncio.Queue[None]") -> str:
    """Reads a stream over REST to its end, and returns what it says."""
    said = []
    body = {"model": model, "messages": HELLO, "stream": True}
    headers = {"Authorization": f"Bearer {token}"}
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        begun.put_nowait(None)
        lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    assert lines.pop() == "[DONE]"
    for event in map(json.loads, lines):
        assert "error" not in event, event
        said += [choice["delta"].get("content") or "" for choice in event["choices"]]
    return "".join(said)


async def streamed_over_grpc(channel: grpc.aio.Channel, token: str, model: str, begun: "asyncio.Queue[None]") -> str:
    """The same over gRPC."""
    said = []
    request = chat_pb2.StreamRequest(chat=asked(model))
    messages = ChatServiceStub(channel).Stream(request, metadata=(("authorization", f"Bearer {token}"),), timeout=20)
    await messages.initial_metadata()
    begun.put_nowait(None)
    async for message in messages:
        said += [event.text for event in message.events if event.HasField("text")]
    return "".join(said)


def asked(model: str) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(model=model, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])


async def answered(twinspan: Running, model: str = MODEL, token: str = TOKEN) -> httpx.Response:
    response = await twinspan.chat({"model": model, "messages": HELLO, "stream": False}, Authorization=f"Bearer {token}")
    assert response.status_code == 200, response.text
    return response


async def whole_over_grpc(twinspan: Running) -> None:
    request = chat_pb2.CompleteRequest(chat=asked(MODEL))
    answer = await ChatServiceStub(twinspan.network).Complete(request, metadata=twinspan.metadata, timeout=20)
    assert answer.choices[0].message.text == "Hello."


async def tokens_left(twinspan: Running) -> int:
    return int((await answered(twinspan, token=THRIFTY)).headers["X-RateLimit-Remaining-Tokens"])


async def refused(twinspan: Running, token: str, model: str = MODEL) -> tuple[int, str]:
    response = await twinspan.chat({"model": model, "messages": HELLO}, Authorization=f"Bearer {token}")
    return response.status_code, response.json()["error_kind"]


async def test_fifty_reloads_break_no_stream_lose_no_request_and_forget_nothing(load: Load) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    async with running_from(load.path) as twinspan, many(twinspan.url) as client, asyncio.TaskGroup() as group:
        core = twinspan.gateway.core
        assert (await answered(twinspan, "careful")).headers["X-Twinspan-Attempts"] == "2"
        left, since = await tokens_left(twinspan), loop.time()
        channels = [twinspan.network, twinspan.inprocess]
        under_way = [
            group.create_task(
                streamed(client, CROWDED, MODEL, begun)
                if number % 2
                else streamed_over_grpc(channels[number // 2 % 2], CROWDED, MODEL, begun)
            )
            for number in range(STREAMS)
        ]
        for _ in range(STREAMS):
            await begun.get()

        new: list[asyncio.Task[Any]] = []
        for number in range(SWAPS):
            load.write(governance={"upstream_timeout_seconds": 100 + number}, debug={"pprof_enabled": bool(number % 2)})
            reloads = [core.reload() for _ in range(1 + number % 2)]  # now and then two at once
            new += [group.create_task(answered(twinspan)) for _ in range(NEW // 2)]
            new += [group.create_task(whole_over_grpc(twinspan)) for _ in range(NEW // 2)]
            await asyncio.gather(*reloads)
            turn = await answered(twinspan, "turns")
            assert turn.headers["X-Twinspan-Model"] == (MODEL, "model-2")[number % 2]
            assert await refused(twinspan, CROWDED) == (429, "rate_limited")  # all its places are taken yet
            load.ticks[number * (len(WORDS) - 1) // SWAPS].set()
        load.ticks[-1].set()

        assert set(await asyncio.gather(*under_way)) == {"".join(WORDS)}
        await asyncio.gather(*new)
        await answered(twinspan, token=CROWDED)
        assert (await answered(twinspan, "careful")).headers["X-Twinspan-Attempts"] == "1"
        now_left = await tokens_left(twinspan)
        used = USED["total_tokens"]
        assert left - used <= now_left <= left - used + (loop.time() - since) * TPM / 60 + 1
        await until(lambda: sum(counts.inflight for counts in core._recorder.methods.values()) == 0)
        stats = (await twinspan.rest.get("/statsz")).json()
        wholes = 5 + SWAPS * (NEW + 1)  # two of `careful`, of which one failed before, two of the thrifty key, one of the crowded
        assert (stats["totals"]["requests"], stats["totals"]["errors"]) == (wholes + STREAMS + 1, 1)
        tokens = wholes * USED["completion_tokens"] + STREAMS * USAGE["completion_tokens"]
        assert stats["totals"]["output_tokens"] == tokens
        (breaker,) = stats["breakers"]
        assert (breaker["agent"], breaker["provider"], breaker["state"]) == ("careful", "broken", "open")
        assert twinspan.complaints() == []


async def test_an_invalid_configuration_changes_nothing_and_the_log_names_every_mistake(load: Load) -> None:
    async with running_from(load.path) as twinspan:
        before = (await twinspan.rest.get("/v1/models")).json()
        load.put(
            json.dumps(
                {
                    "client_token": "ts-another-administrator",
                    "providers": {"acme": {"base_url": "not an address", "modles": [MODEL]}},
                    "agents": {"new": {"strategy": "fastest", "models": []}},
                    "api_keys": [{"name": "short", "token": "short"}],
                    "governance": {"upstream_timeout_seconds": -1},
                }
            )
        )
        await twinspan.gateway.core.reload()
        (complaint,) = twinspan.complaints()
        assert "was not reloaded, the old one goes on" in complaint
        for place in (
            "providers.acme.base_url",
            "providers.acme.modles",
            "agents.new.strategy",
            "agents.new.models",
            "api_keys[0].token",
            "governance.upstream_timeout_seconds",
        ):
            assert place in complaint
        assert (await twinspan.rest.get("/v1/models")).json() == before
        await answered(twinspan, "turns", THRIFTY)
        load.put("{")
        await twinspan.gateway.core.reload()
        assert len(twinspan.complaints()) == 2
        await answered(twinspan, "turns", THRIFTY)


async def test_a_changed_configuration_holds_for_new_requests_and_those_under_way_end_as_they_began(load: Load) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    async with running_from(load.path) as twinspan, many(twinspan.url) as client, asyncio.TaskGroup() as group:
        assert (await answered(twinspan, token=LEAVER)).headers["X-RateLimit-Limit-Requests"] == "100"
        under_way = [
            group.create_task(streamed(client, LEAVER, "turns", begun)),
            group.create_task(streamed_over_grpc(twinspan.network, LEAVER, "turns", begun)),
        ]
        for _ in under_way:
            await begun.get()
        load.write(
            agents={"other": {"models": ["model-2"]}},
            api_keys=[{"name": "crowded", "token": CROWDED, "rpm": 7}, {"name": "comer", "token": "ts-the-key-that-has-come"}],
        )
        await twinspan.gateway.core.reload()
        assert await refused(twinspan, LEAVER) == (401, "auth_failed")
        assert await refused(twinspan, TOKEN, "turns") == (404, "model_not_found")
        assert (await answered(twinspan, "other", "ts-the-key-that-has-come")).headers["X-Twinspan-Model"] == "model-2"
        assert (await answered(twinspan, token=CROWDED)).headers["X-RateLimit-Limit-Requests"] == "7"
        for tick in load.ticks:
            tick.set()
        assert set(await asyncio.gather(*under_way)) == {"".join(WORDS)}
        assert twinspan.complaints() == []


async def test_signals_that_ask_for_reloads_break_no_stream_of_a_process(load: Load, tmp_path: Path) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    talkative = {**configuration("")["server"], "log_level": "info"}
    load.write(server=talkative)
    async with started("serve", "--config", str(load.path), cwd=tmp_path) as process, asyncio.TaskGroup() as group:
        url = (await process.until(r"^REST +(http://127\.0\.0\.1:\d+)/v1$"))[1]
        target = (await process.until(r"^gRPC +(127\.0\.0\.1:\d+)$"))[1]
        async with many(url) as client, grpc.aio.insecure_channel(target) as channel:
            over_rest = [group.create_task(streamed(client, TOKEN, MODEL, begun)) for _ in range(10)]
            over_grpc = [group.create_task(streamed_over_grpc(channel, TOKEN, MODEL, begun)) for _ in range(10)]
            for _ in range(20):
                await begun.get()
            for tick in load.ticks:
                load.write(server=talkative, api_keys=[])
                process.process.send_signal(signal.SIGHUP)
                await process.complains("was reloaded")
                tick.set()
            assert set(await asyncio.gather(*over_rest, *over_grpc)) == {"".join(WORDS)}
