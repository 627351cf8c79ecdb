"""What a client may do wrong, and the one clear answer to each: a status of the matrix, one shape, nothing leaked or logged."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from twinspan.v1 import chat_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from tests.flows.running import TOKEN, Running, configuration, running, running_over
from tests.flows.upstream import MODEL, Upstream

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Mistake:
    """A request that cannot be served, and what it must be told."""

    name: str
    body: Any
    says: str
    status: int = 400
    kind: str = "invalid_request"
    param: str | None = None


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": MESSAGES, **fields}


BODIES = [
    Mistake("no JSON", b"{oops", "not valid JSON"),
    Mistake("nothing at all", b"", "JSON"),
    Mistake("a list", [], "object"),
    Mistake("bytes that are no UTF-8", b'{"model": "\xff"}', "UTF-8"),
    Mistake("JSON nested without end", b"[" * 100_000, "JSON"),
    Mistake("no model", {"messages": MESSAGES}, "name a model", param="model"),
    Mistake("a model that is a number", body(model=7), "string", param="model"),
    Mistake("a model that is null", body(model=None), "model", param="model"),
    Mistake("a model name of 257 characters", body(model="m" * 257), "256", param="model"),
    Mistake("a model that is not there", body(model="nobody"), "/v1/models", 404, "model_not_found", "model"),
    Mistake("no messages", {"model": MODEL}, "message", param="messages"),
    Mistake("an empty list of messages", body(messages=[]), "message", param="messages"),
    Mistake("messages that are a string", body(messages="Hello"), "array", param="messages"),
    Mistake("a message that is a string", body(messages=["Hello"]), "object", param="messages[0]"),
    Mistake("a message without a role", body(messages=[*MESSAGES, {"content": "x"}]), "role", param="messages[1]"),
    Mistake("content that is a number", body(messages=[{"role": "user", "content": 7}]), "string", param="messages[0].content"),
    Mistake("a part without a type", body(messages=[{"role": "user", "content": [{}]}]), "type", param="messages[0].content[0]"),
    Mistake("a tool that is a string", body(tools=["f"]), "object", param="tools[0]"),
    Mistake("a temperature that is a string", body(temperature="hot"), "number", param="temperature"),
    Mistake("an n that is a fraction", body(n=1.5), "integer", param="n"),
    Mistake("a stream that is a string", body(stream="yes"), "boolean", param="stream"),
    Mistake("stream options that are a list", body(stream_options=[]), "object", param="stream_options"),
    Mistake("a number beyond 64 bits", body(seed=2**70), "seed", param="seed"),
]


async def assert_refused(response: Any, mistake: Mistake) -> None:
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-Id"]
    answer = response.json()
    assert response.status_code == mistake.status, answer
    assert set(answer) == {"error", "error_kind"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert (answer["error_kind"], answer["error"]["param"]) == (mistake.kind, mistake.param), answer
    assert mistake.says in answer["error"]["message"]


@pytest.mark.parametrize("mistake", BODIES, ids=lambda mistake: mistake.name)
async def test_a_body_that_cannot_be_served_is_told_where_it_is_wrong(
    twinspan: Running, upstream: Upstream, mistake: Mistake
) -> None:
    content = mistake.body if isinstance(mistake.body, bytes) else json.dumps(mistake.body).encode()
    await assert_refused(await twinspan.rest.post(CHAT, content=content), mistake)
    assert upstream.requests == []
    assert twinspan.complaints() == []


async def test_a_body_over_the_limit_is_refused_with_the_limit(upstream: Upstream) -> None:
    async with running_over(
        upstream, server={"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "max_body_bytes": 2000}
    ) as twinspan:
        refused = await twinspan.rest.post(CHAT, json=body(user="x" * 2000))
        await assert_refused(refused, Mistake("", b"", "2000 bytes", 413, "payload_too_large"))
        assert (await twinspan.chat(body(stream=False))).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"Authorization": ""}, 401, "auth_failed"),
        ({"Authorization": "Bearer ts-wrong"}, 401, "auth_failed"),
        ({"Authorization": "Bearer"}, 401, "auth_failed"),
        ({"Authorization": f"Basic {TOKEN}"}, 401, "auth_failed"),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401, "auth_failed"),
        ({"Authorization": "Bearer " + "x" * 5000}, 401, "auth_failed"),
    ],
    ids=["empty", "unknown", "without a token", "of another scheme", "longer by one", "very long"],
)
async def test_a_wrong_credential_is_refused(twinspan: Running, headers: dict[str, str], status: int, kind: str) -> None:
    response = await twinspan.rest.post(CHAT, json=body(), headers=headers)
    assert (response.status_code, response.json()["error_kind"]) == (status, kind)
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert TOKEN not in response.text


async def test_a_missing_credential_says_how_to_give_one(twinspan: Running) -> None:
    del twinspan.rest.headers["Authorization"]
    response = await twinspan.rest.post(CHAT, json=body())
    assert response.status_code == 401
    assert "Authorization: Bearer" in response.json()["error"]["message"]


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
async def test_the_headers_of_other_sdks_carry_the_credential_too(twinspan: Running, header: str) -> None:
    del twinspan.rest.headers["Authorization"]
    assert (await twinspan.rest.post(CHAT, json=body(stream=False), headers={header: TOKEN})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/", 404, "not_found"),
        ("POST", "/chat/completions", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/v1/%2e%2e/etc/passwd", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("PATCH", CHAT, 405, "method_not_allowed"),
        ("BREW", CHAT, 400, "invalid_request"),
    ],
)
async def test_a_route_that_is_not_there_is_an_error_in_json(
    twinspan: Running, method: str, path: str, status: int, kind: str
) -> None:
    response = await twinspan.rest.request(method, path)
    assert (response.status_code, response.json()["error_kind"]) == (status, kind)
    if status == 405:
        assert response.headers["Allow"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\nBroken header\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
    ids=["TLS", "a header without a colon", "a version", "a null", "a negative length", "two lengths", "a header of 70 KB"],
)
async def test_what_is_no_http_gets_400_in_json_and_the_connection_is_closed(twinspan: Running, garbage: bytes) -> None:
    answer = await exchange(twinspan, garbage, ends=False)
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head.partition(b"\r\n")[0]
    assert json.loads(content)["error_kind"] == "invalid_request"
    assert twinspan.complaints() == []


async def test_a_body_cut_short_leaves_nothing_behind(twinspan: Running, upstream: Upstream) -> None:
    before = len(asyncio.all_tasks())
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 500\r\n\r\n"
    await exchange(twinspan, head.encode() + b'{"model": "m')
    await twinspan.spans.trees()
    assert upstream.requests == []
    assert twinspan.complaints() == []
    assert len(asyncio.all_tasks()) <= before


async def exchange(twinspan: Running, data: bytes, *, ends: bool = True) -> bytes:
    """Sends bytes, says that no more will come if that `ends` them, and returns all that is answered."""
    port = int(twinspan.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if ends:
            writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("model", "shown"), [("modèle-é", "mod%C3%A8le-%C3%A9"), ("a\nb", "a%0Ab"), ("org/m:1@x y", "org/m:1@x y")]
)
async def test_a_models_name_reaches_the_provider_as_it_is_and_headers_as_they_can_carry_it(
    upstream: Upstream, model: str, shown: str
) -> None:
    async with running(configuration(upstream.base_url, providers={"acme": {"base_url": upstream.base_url}})) as twinspan:
        answer = await twinspan.chat({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
        assert (answer.status_code, answer.headers["X-Twinspan-Model"]) == (200, shown)
        request = chat_pb2.CompleteRequest(chat=chat_pb2.ChatRequest(model=model, messages_json=b'[{"role":"user"}]'))
        call = ChatServiceStub(twinspan.network).Complete(request, metadata=twinspan.metadata, timeout=5)
        assert (await call).choices
        assert dict(await call.trailing_metadata())["x-twinspan-model"] == shown
    assert [request.body["model"] for request in upstream.requests] == [model, model]
