"""`buf curl`, which learns from the core's reflection all that it needs to call it."""

import json
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import MODEL, Address, output
from tests.flows.running import TOKEN

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUF = Path(sys.executable).with_name("buf")


async def call(gateway: Address, method: str, message: str = "{}") -> str:
    """Calls a method by its name alone."""
    url = f"http://{gateway.target}/{method}"
    header = f"authorization: Bearer {TOKEN}"
    command = (BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", "grpc-v1alpha")
    return await output(*command, "--header", header, "--data", message, url)


async def test_buf_curl_streams_an_answer_by_reflection(gateway: Address) -> None:
    message = {"chat": {"model": MODEL, "maxTokens": 8, "messages": [{"role": "ROLE_USER", "text": "Say hello."}]}}
    printed = await call(gateway, "twinspan.v1.ChatService/Stream", json.dumps(message))
    assert '"text"' in printed
    whole = json.loads(await call(gateway, "twinspan.v1.ChatService/Complete", json.dumps(message)))
    assert whole["choices"][0]["message"]["text"]


async def test_buf_curl_lists_models_and_stats_by_reflection(gateway: Address) -> None:
    models = json.loads(await call(gateway, "twinspan.v1.ModelsService/List"))
    assert MODEL in [model["id"] for model in models["models"]]
    assert "uptimeSeconds" in json.loads(await call(gateway, "twinspan.v1.AdminService/GetStats"))
