"""The REST surface's own description, put to the test by schemathesis, which makes requests of it."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.flows.running import TOKEN, Running, configuration, running
from tests.flows.upstream import OTHERS, Upstream, by_path, says

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
SERVICES = ["audio", "completions", "embeddings", "images", "moderations", "rerank", "responses"]


async def test_the_document_names_every_route_and_needs_no_credential(twinspan: Running) -> None:
    twinspan.rest.headers.pop("Authorization")
    answer = await twinspan.rest.get("/openapi.json")
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    assert {"/v1/chat/completions", "/v1/models/{id}", "/v1/moderations", "/healthz"} <= document["paths"].keys()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["responses"]["200"]["content"].keys() == {"application/json", "text/event-stream"}
    described = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"model", "messages", "stream", "temperature"} <= described.keys()
    assert "messages_json" not in described
    assert described["temperature"]["description"] == "Randomness, 0 to 2."


async def test_the_page_shows_the_document_and_fetches_nothing_from_elsewhere(twinspan: Running) -> None:
    page = await twinspan.rest.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert 'fetch("openapi.json")' in page.text
    assert "http" not in page.text.replace("http-equiv", "")


@pytest.mark.parametrize("seed", [1])
async def test_no_request_gets_an_answer_outside_the_document(upstream: Upstream, tmp_path: Path, seed: int) -> None:
    upstream.plays(by_path({"/v1/chat/completions": says("Hello."), **OTHERS}))
    providers = {"acme": {"base_url": upstream.base_url, "capabilities": SERVICES}}
    async with running(configuration(upstream.base_url, providers=providers)) as twinspan:
        process = await asyncio.create_subprocess_exec(
            SCHEMATHESIS,
            *("run", f"{twinspan.url}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}", "--checks", CHECKS),
            *("--max-examples", "25", "--seed", str(seed), "--generation-database", "none", "--no-color"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(120):
                printed, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, printed.decode()
        assert twinspan.complaints() == []
