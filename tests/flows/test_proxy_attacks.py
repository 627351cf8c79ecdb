"""What must never be forwarded: other hosts, other paths than the one that was checked, a second request hidden in the first."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlsplit

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from twinspan.v1 import proxy_pb2
from twinspan.v1.proxy_pb2_grpc import ProxyServiceStub

from tests.flows.running import TOKEN, Running, running_over
from tests.flows.wire import Wire, answers, raw_exchange

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOST = f"Host: gateway\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n".encode()
DOT = ["..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%25252e%25252e", "%2e%252e", "%252525252e."]
TRAVERSALS = [
    *(f"/v1/{dots}/admin" for dots in DOT),
    *(f"/v1/{dots}" for dots in DOT),
    "/../x",
    "/./x",
    "/v1/%2e/x",
    "/v1/..;/admin",
    "/v1/..;a=b/admin",
    "/v1/%2e%2e;/admin",
    "/v1/..%2fadmin",
    "/v1/..%252fadmin",
    "/v1%2f..%2fadmin",
    "/v1/%2e%2e%3fx",
    "/v1/%ef%bc%8e%ef%bc%8e/admin",
    "/v1/%c0%ae%c0%ae/admin",
    "/v1\\..\\admin",
    "/v1/%5c..%5cadmin",
    "/v1/..%5cadmin",
    "/v1/%255cx",
    "/v1/x%00",
    "/v1/x%0d%0aHost:%20evil",
    "/v1/x%250d%250aHost:%20evil",
    "/v1/x%0a",
    "/v1/x%7f",
    "/v1/x%c2%85",
    "/v1/%",
    "/v1/%zz",
    "/v1/%u002e%u002e/",
    "/v1/%ff",
    "/v1/a#b",
    "/v1/%" + "25" * 12 + "41",
]
HOSTS = [
    "/http://127.0.0.1:1/x",
    "/https://evil.example/",
    "/https:%2f%2fevil.example/",
    "/http%3a%2f%2fevil.example/",
    "/http%253a%252f%252fevil.example/",
    "//evil.example/x",
    "/%2fevil.example/x",
    "/%252fevil.example/x",
    "/v1/x/file:///etc/passwd",
]
REFUSED = [*TRAVERSALS, *HOSTS]
ONLY_GRPC = [
    "",
    "x",
    "v1/models",
    "@evil.example/x",
    "http://evil.example/x",
    "/a b",
    "/a\r\nHost: evil",
    "/a\nb",
    "/\x00",
    "/é",
    "*",
]


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire(answers(OK)) as started:
        yield started


@pytest.fixture
async def proxied(wire: Wire) -> AsyncIterator[Running]:
    async with running_over(wire) as started:
        yield started


async def settled(call: Any) -> grpc.StatusCode:
    """Reads an answer to its end and returns the status."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in call:
            pass
    return cast("grpc.StatusCode", await call.code())


async def refusal(stub: ProxyServiceStub, twinspan: Running, head: proxy_pb2.ForwardRequestHead) -> str:
    """Returns the reason for which a request is refused over gRPC."""
    call: Any = stub.Forward(iter([proxy_pb2.ForwardRequest(head=head)]), metadata=twinspan.metadata, timeout=5)
    assert await settled(call) is not grpc.StatusCode.OK
    packed = dict(await call.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(packed).details[0].Unpack(info)
    return str(info.reason)


async def raw(twinspan: Running, line: bytes, fields: bytes = b"", body: bytes = b"") -> bytes:
    return await raw_exchange(urlsplit(twinspan.url).port or 0, line + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body)


async def test_no_path_that_leaves_what_was_asked_for_is_forwarded(proxied: Running, wire: Wire) -> None:
    stub = ProxyServiceStub(proxied.network)
    for path in REFUSED:
        answer = await raw(proxied, f"GET /proxy/acme{path}".encode())
        assert answer.startswith(b"HTTP/1.1 400 "), (path, answer)
        assert b'"error_kind":"invalid_request"' in answer, path
        head = proxy_pb2.ForwardRequestHead(provider="acme", method="GET", path=path)
        assert await refusal(stub, proxied, head) == "INVALID_REQUEST", path
    assert wire.taken == []
    assert proxied.complaints() == []


async def test_no_path_that_http_cannot_even_carry_is_forwarded(proxied: Running, wire: Wire) -> None:
    for channel in (proxied.network, proxied.inprocess):
        stub = ProxyServiceStub(channel)
        for path in ONLY_GRPC:
            head = proxy_pb2.ForwardRequestHead(provider="acme", method="GET", path=path)
            assert await refusal(stub, proxied, head) == "INVALID_REQUEST", path
        for query in ("a b", "a\r\nHost: evil", "a#b", "\x00", "é"):
            head = proxy_pb2.ForwardRequestHead(provider="acme", method="GET", path="/x", query=query)
            assert await refusal(stub, proxied, head) == "INVALID_REQUEST", query
        for method in ("", "GET /evil HTTP/1.1\r\nX:", "G T", "A" * 33, "GÉT"):
            head = proxy_pb2.ForwardRequestHead(provider="acme", method=method, path="/x")
            assert await refusal(stub, proxied, head) == "INVALID_REQUEST", method
    assert wire.taken == []


@pytest.mark.parametrize("target", ["http://evil.example/proxy/acme/x", "http://127.0.0.1:1/proxy/acme/../x"])
async def test_a_target_that_is_a_url_is_refused(proxied: Running, wire: Wire, target: str) -> None:
    answer = await raw(proxied, b"GET " + target.encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert wire.taken == []


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "TRACK"])
async def test_methods_that_speak_to_proxies_are_refused(proxied: Running, wire: Wire, method: str) -> None:
    stub = ProxyServiceStub(proxied.network)
    head = proxy_pb2.ForwardRequestHead(provider="acme", method=method, path="/x")
    assert await refusal(stub, proxied, head) == "METHOD_NOT_ALLOWED"
    answer = await raw(proxied, f"{method} /proxy/acme/x".encode())
    assert answer.split(b" ")[1] in {b"400", b"404", b"405"}  # 404 for CONNECT, whose target is no path
    assert wire.taken == []


@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"X-Folded: a\r\n b\r\n",
        b"X-Folded: a\r\n\tTransfer-Encoding: chunked\r\n",
        b"X-Bare: a\rTransfer-Encoding: chunked\r\n",
        b"X-Null: a\x00b\r\n",
        b"X Space: a\r\n",
        b": nameless\r\n",
        b"\x0bTransfer-Encoding: chunked\r\n",
    ],
)
async def test_headers_that_two_servers_could_read_differently_are_refused(proxied: Running, wire: Wire, fields: bytes) -> None:
    answer = await raw(proxied, b"POST /proxy/acme/x", fields, b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.split(b" ")[1] == b"400"
    assert answer.count(b"HTTP/1.") == 1
    assert wire.taken == []
    assert proxied.complaints() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", b"a\r\nHost: evil"),
        ("X-A", b"a\nb"),
        ("X-A", b"a\rb"),
        ("X-A", b"a\x00b"),
        ("X-A", b"a\r\n folded"),
        ("X-A\r\nHost", b"evil"),
        ("X A", b"a"),
        ("X-A:", b"a"),
        ("", b"a"),
        ("X-É", b"a"),
        ("X-A", b"a" * 70_000),
    ],
)
async def test_a_stub_cannot_write_what_http_would_read_as_something_else(
    proxied: Running, wire: Wire, name: str, value: bytes
) -> None:
    for channel in (proxied.network, proxied.inprocess):
        head = proxy_pb2.ForwardRequestHead(
            provider="acme", method="GET", path="/x", headers=[proxy_pb2.ForwardHeader(name=name, value=value)]
        )
        assert await refusal(ProxyServiceStub(channel), proxied, head) == "INVALID_REQUEST"
    assert wire.taken == []


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Host", "Connection", "Upgrade", "Authorization", "TE"])
async def test_a_stub_cannot_set_the_framing_the_host_or_the_credential(proxied: Running, wire: Wire, name: str) -> None:
    stub = ProxyServiceStub(proxied.network)
    head = proxy_pb2.ForwardRequestHead(
        provider="acme", method="POST", path="/x", content_length=3, headers=[proxy_pb2.ForwardHeader(name=name, value=b"evil")]
    )
    requests = [proxy_pb2.ForwardRequest(head=head), proxy_pb2.ForwardRequest(body=b"abc")]
    call: Any = stub.Forward(iter(requests), metadata=proxied.metadata, timeout=5)
    async for _ in call:
        pass
    assert b"evil" not in wire.taken[0].head


@pytest.mark.parametrize("sent", [b"ab", b"abcd"])
async def test_a_body_of_another_length_than_announced_is_refused(proxied: Running, sent: bytes) -> None:
    for channel in (proxied.network, proxied.inprocess):
        head = proxy_pb2.ForwardRequestHead(provider="acme", method="POST", path="/x", content_length=3)
        requests = [proxy_pb2.ForwardRequest(head=head), proxy_pb2.ForwardRequest(body=sent)]
        call: Any = ProxyServiceStub(channel).Forward(iter(requests), metadata=proxied.metadata, timeout=5)
        assert await settled(call) is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_answer_cannot_smuggle_a_second_one(proxied: Running, wire: Wire) -> None:
    wire.play = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden")
    first = await proxied.rest.get("/proxy/acme/a")
    wire.play = answers(OK)
    second = await proxied.rest.get("/proxy/acme/b")
    assert (first.content, second.content) == (b"ok", b"ok")


KEYS = [
    {"name": "reader", "token": "ts-reader-0123456789", "roles": ["read-only"]},
    {"name": "user", "token": "ts-user-0123456789ab", "roles": ["user"]},
    {"name": "one", "token": "ts-one-0123456789abc", "allowed_endpoints": ["GET /proxy/acme/v1/models"]},
    {"name": "get", "token": "ts-get-0123456789abc", "allowed_endpoints": ["GET /proxy/*"]},
    {"name": "acme", "token": "ts-acme-0123456789ab", "allowed_endpoints": ["* /proxy/acme/*"]},
    {"name": "middle", "token": "ts-middle-0123456789", "allowed_endpoints": ["POST /proxy/*/v1/x"]},
    {"name": "bound", "token": "ts-bound-0123456789a", "allowed_agents": ["smart"]},
    {"name": "there", "token": "ts-there-0123456789a", "allowed_agents": ["smart", "other/*"]},
    {"name": "chat", "token": "ts-chat-0123456789ab", "allowed_endpoints": ["POST /v1/chat/completions"]},
]
ASKED = ["GET /proxy/acme/v1/models", "GET /proxy/acme/v1/models/a/b", "POST /proxy/acme/v1/x", "GET /proxy/other/v1/models"]


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("reader", []),
        ("user", ASKED),
        ("one", ASKED[:1]),
        ("get", [ASKED[0], ASKED[1], ASKED[3]]),
        ("acme", ASKED[:3]),
        ("middle", [ASKED[2]]),
        ("bound", []),
        ("there", [ASKED[3]]),
        ("chat", []),
    ],
)
async def test_a_key_reaches_what_its_role_or_its_endpoints_say_on_both_surfaces(wire: Wire, name: str, reached: list[str]) -> None:
    token = next(key["token"] for key in KEYS if key["name"] == name)
    providers = {"acme": {"base_url": wire.base_url}, "other": {"base_url": wire.base_url}}
    async with running_over(wire, api_keys=KEYS, providers=providers) as twinspan:
        rest, grpc_found = [], []
        for asked in ASKED:
            method, path = asked.split(" ")
            answer = await twinspan.rest.request(method, path, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code in {200, 403}
            if answer.status_code == 200:
                rest.append(asked)
            _, _, provider, rest_of_path = path.split("/", 3)
            head = proxy_pb2.ForwardRequestHead(provider=provider, method=method, path=f"/{rest_of_path}")
            requests = iter([proxy_pb2.ForwardRequest(head=head)])
            call: Any = ProxyServiceStub(twinspan.network).Forward(requests, metadata=(("authorization", f"Bearer {token}"),))
            code = await settled(call)
            assert code in {grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED}
            if code is grpc.StatusCode.OK:
                grpc_found.append(asked)
        assert rest == reached
        assert grpc_found == reached


async def test_without_a_credential_nothing_is_forwarded(proxied: Running, wire: Wire) -> None:
    answer = await proxied.rest.get("/proxy/acme/x", headers={"Authorization": "Bearer ts-unknown-0123456789"})
    assert answer.status_code == 401
    del proxied.rest.headers["Authorization"]
    assert (await proxied.rest.get("/proxy/acme/x")).status_code == 401
    assert (await proxied.rest.get("/proxy/nobody/x")).status_code == 401
    assert wire.taken == []
