"""Clients in another language: the official OpenAI SDK for Node, and gRPC from the protos alone."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import CALL, EMBEDDING_MODEL, GOOGLEAPIS, MODEL, NODE, PROTOS, Address, cases, output
from tests.flows.running import TOKEN

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("node") is None or not (NODE / "node_modules").is_dir(), reason="Node is not installed"),
]


async def test_the_openai_sdk_for_node_works(gateway: Address) -> None:
    printed = await output(
        "node",
        NODE / "openai_chat.mjs",
        BASE_URL=f"{gateway.url}/v1",
        API_KEY=TOKEN,
        MODEL=MODEL,
        TOOL_MODEL="tool-caller",
        EMBEDDING_MODEL=EMBEDDING_MODEL,
    )
    seen: dict[str, Any] = cases(printed)
    assert seen["unary"]["object"] == "chat.completion"
    assert seen["unary"]["text"]
    assert seen["unary"]["usage"]["completion_tokens"] > 0
    assert seen["raw_response"]["provider"] == "local"
    assert seen["raw_response"]["request_id"]
    assert seen["stream"]["text"]
    assert seen["stream"]["chunks"] > 2
    assert seen["stream"]["finish_reason"] in {"stop", "length"}
    assert seen["stream"]["usage"]["prompt_tokens"] > 0
    for name in ("tool_call", "streamed_tool_call"):
        assert (seen[name]["finish_reason"], seen[name]["tool_calls"]) == ("tool_calls", [CALL])
    assert seen["embeddings"]["sizes"] == [384, 384]  # which the SDK asks for in base64, and reads
    assert seen["embeddings"]["usage"]["prompt_tokens"] > 0
    assert {MODEL, "tool-caller"} <= set(seen["models"]["ids"])
    assert seen["models"]["one"] == MODEL
    for name, error, status in (
        ("wrong_key", "AuthenticationError", 401),
        ("wrong_model", "NotFoundError", 404),
        ("wrong_model_streamed", "NotFoundError", 404),
        ("bad_request", "BadRequestError", 400),
    ):
        assert (seen[name]["class"], seen[name]["status"]) == (error, status)
        assert seen[name]["request_id"]


async def test_files_and_batches_of_the_openai_sdk_for_node_work(gateway: Address, tmp_path: Path) -> None:
    given = tmp_path / "notes.txt"
    given.write_text("a line\n" * 50_000)
    printed = await output(
        "node", NODE / "openai_files.mjs", BASE_URL=f"{gateway.url}/v1", API_KEY=TOKEN, MODEL=MODEL, FILE=str(given)
    )
    seen: dict[str, Any] = cases(printed)
    assert seen["files"] == {"filename": "notes.txt", "bytes": 350_000, "content": 350_000, "listed": True, "deleted": True}
    assert seen["batch"] == {"status": "completed", "counts": {"total": 2, "completed": 2, "failed": 0}, "answered": ["a", "b"]}
    assert seen["missing"] == {"class": "NotFoundError", "status": 404, "code": "not_found"}


async def test_grpc_from_node_works(gateway: Address) -> None:
    paths = os.pathsep.join((str(PROTOS), str(GOOGLEAPIS)))
    printed = await output("node", NODE / "grpc_chat.mjs", TARGET=gateway.target, API_KEY=TOKEN, MODEL=MODEL, PROTO_PATH=paths)
    seen: dict[str, Any] = cases(printed)
    for name in ("unary", "stream"):
        assert seen[name]["code"] == "OK"
        assert seen[name]["text"]
        assert seen[name]["usage"]["output_tokens"] > 0
        assert seen[name]["trailers"]["x-twinspan-provider"] == "local"
    assert seen["wrong_key"]["code"] == "UNAUTHENTICATED"
    assert seen["wrong_model"]["code"] == "NOT_FOUND"
    assert seen["wrong_model_streamed"]["code"] == "NOT_FOUND"
    assert "no-such-model" in seen["wrong_model"]["details"]
