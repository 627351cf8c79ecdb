"""A gateway on its embedded model, as a process, for clients that are processes too."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import google.api.annotations_pb2
import pytest
import pytest_asyncio
from aiohttp import web

from tests.flows.commands import ROOT, configure, environment, started
from tests.flows.running import TOKEN
from tests.flows.upstream import OTHERS, Request, Upstream, by_path, chunk, completion, streams, whole

NODE = Path(__file__).parent / "node"
GOOGLEAPIS = Path(google.api.annotations_pb2.__file__).parents[2]
PROTOS = ROOT / "proto"
MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"
MEDIA_MODELS = ["gpt-4.1-mini", "rerank-v3.5", "gpt-3.5-turbo-instruct", "gpt-image-1", "dall-e-2", "whisper-1", "gpt-4o-mini-tts"]
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Bern"}'}}


@dataclass
class Address:
    """Where a gateway is."""

    url: str
    target: str


async def calls_a_tool(http: web.BaseRequest, request: Request) -> web.StreamResponse:
    """Answers with a call of a tool, in two pieces if it is streamed."""
    if not request.body.get("stream"):
        return await whole(completion({"role": "assistant", "content": None, "tool_calls": [CALL]}, "tool_calls"))(http, request)
    begin = {**CALL, "index": 0, "function": {"name": "get_weather", "arguments": '{"ci'}}
    rest = {"index": 0, "function": {"arguments": 'ty":"Bern"}'}}
    events = (
        chunk({"role": "assistant", "tool_calls": [begin]}),
        chunk({"tool_calls": [rest]}),
        chunk({}, finish_reason="tool_calls"),
    )
    return await streams(*events, "[DONE]")(http, request)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Address]:
    """Runs a gateway with the embedded model, and with `tool-caller`, which answers with a tool call in two pieces."""
    directory = tmp_path_factory.mktemp("gateway")
    async with Upstream() as upstream:
        upstream.plays(by_path({"/v1/chat/completions": calls_a_tool, **OTHERS}))
        acme = {"base_url": upstream.base_url, "api_key": "k", "models": ["omni-moderation-latest", "tool-caller", *MEDIA_MODELS]}
        providers = {"local": {}, "acme": acme}
        configure(directory, upstream.base_url, providers=providers, debug={"pprof_enabled": True})
        async with started("serve", cwd=directory, TWINSPAN_SECRETS_DIR=str(directory / "secrets")) as process:
            url = (await process.until(r"^REST\s+(http\S+)/v1"))[1]
            target = (await process.until(r"^gRPC\s+(\S+)"))[1]
            yield Address(url, target)


async def output(*command: str | Path, cwd: Path = ROOT, stdin: str = "", **variables: str) -> str:
    """Returns what a command prints, once it has ended well."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment(TWINSPAN_TOKEN=TOKEN, **variables),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return out.decode()


def cases(printed: str) -> dict[str, dict[str, object]]:
    """Returns what a client reports of each case."""
    found = [json.loads(line) for line in printed.splitlines()]
    return {case.pop("case"): case for case in found}
