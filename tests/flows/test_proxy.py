"""/proxy/{provider}/{path} and ProxyService.Forward: requests that go to a provider as they are."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from twinspan.v1 import proxy_pb2
from twinspan.v1.proxy_pb2_grpc import ProxyServiceStub

from tests.flows.running import TOKEN, Running, running_over
from tests.flows.upstream import Upstream
from tests.flows.wire import Taken, Wire, answers, raw_exchange

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
AUTHORIZED = f"Host: gateway\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire(answers(OK)) as started:
        yield started


@pytest.fixture
async def proxied(wire: Wire) -> AsyncIterator[Running]:
    async with running_over(wire) as started:
        yield started


@pytest.fixture(params=["inprocess", "network"])
def stub(proxied: Running, request: pytest.FixtureRequest) -> ProxyServiceStub:
    return ProxyServiceStub(proxied.inprocess if request.param == "inprocess" else proxied.network)


def port(twinspan: Running) -> int:
    return urlsplit(twinspan.url).port or 0


async def forward(
    stub: ProxyServiceStub, twinspan: Running, head: proxy_pb2.ForwardRequestHead, *parts: proxy_pb2.ForwardRequest
) -> list[proxy_pb2.ForwardResponse]:
    """Forwards a request over gRPC and returns all parts of the answer."""
    requests = [proxy_pb2.ForwardRequest(head=head), *parts]
    call: Any = stub.Forward(iter(requests), metadata=twinspan.metadata, timeout=5)
    return [response async for response in call]


def body_of(responses: list[proxy_pb2.ForwardResponse]) -> bytes:
    return b"".join(response.body for response in responses)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND"])
async def test_any_method_reaches_the_providers_own_host(proxied: Running, wire: Wire, method: str) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Own: 1\r\n\r\n"
    wire.play = answers(body if method == "HEAD" else body + b"ok")
    answer = await proxied.rest.request(method, "/proxy/acme/v2/things%2F1?a=b%20c&a=d")
    assert answer.status_code == 200
    assert answer.headers["X-Own"] == "1"
    assert answer.headers["Content-Length"] == "2"
    assert answer.content == (b"" if method == "HEAD" else b"ok")
    (taken,) = wire.taken
    assert (taken.method, taken.target) == (method, "/v2/things%2F1?a=b%20c&a=d")
    assert proxied.complaints() == []


async def test_the_providers_credential_takes_the_place_of_the_clients(proxied: Running, wire: Wire) -> None:
    headers = {
        "X-Api-Key": TOKEN,
        "Api-Key": TOKEN,
        "X-Goog-Api-Key": TOKEN,
        "Cookie": "session=1",
        "Proxy-Authorization": "Basic abc",
        "X-Forwarded-Host": "evil.example",
        "X-Original-Url": "/admin",
        "X-Http-Method-Override": "DELETE",
        "Connection": "x-hop, keep-alive",
        "X-Hop": "1",
        "Keep-Alive": "timeout=5",
        "X-Kept": "yes",
        "OpenAI-Organization": "org-1",
    }
    await proxied.rest.post("/proxy/acme/v1/chat/completions", content=b"{}", headers=headers)
    (taken,) = wire.taken
    assert taken.field("Authorization") == "Bearer upstream-secret-key"
    assert taken.field("Host") == f"127.0.0.1:{wire.port}"
    assert taken.field("X-Kept") == "yes"
    assert taken.field("OpenAI-Organization") == "org-1"
    assert taken.field("Content-Length") == "2"
    hidden = {"x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization", "x-forwarded-host", "x-original-url"}
    assert not taken.names() & (hidden | {"x-http-method-override", "connection", "x-hop", "keep-alive"})
    assert TOKEN.encode() not in taken.head


@pytest.mark.parametrize(
    ("style", "name"), [("anthropic", "x-api-key"), ("azure", "api-key"), ("bearer+x-goog", "x-goog-api-key"), ("none", None)]
)
async def test_the_credential_is_put_in_by_the_providers_auth_style(wire: Wire, style: str, name: str | None) -> None:
    providers = {"acme": {"base_url": wire.base_url, "api_key": "upstream-secret-key", "auth_style": style}}
    async with running_over(wire, providers=providers) as twinspan:
        await twinspan.rest.get("/proxy/acme/v1/models", headers={"anthropic-version": "2099-01-01"})
    (taken,) = wire.taken
    found = {field.lower() for field, value in taken.fields if "upstream-secret-key" in value}
    assert found == ({name} if name else set()) | ({"authorization"} if style == "bearer+x-goog" else set())
    assert taken.field("anthropic-version") == "2099-01-01"


async def test_an_answer_comes_back_as_it_is(proxied: Running, wire: Wire) -> None:
    wire.play = answers(
        b"HTTP/1.1 418 I am a teapot\r\nContent-Encoding: br\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: acme\r\n"
        b"Connection: keep-alive, X-Private\r\nX-Private: 1\r\nContent-Length: 4\r\n\r\n\x00\xff\x01\x02"
    )
    raw = await raw_exchange(port(proxied), b"GET /proxy/acme/x HTTP/1.1\r\nConnection: close\r\n" + AUTHORIZED + b"\r\n")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert body == b"\x00\xff\x01\x02"
    line, *fields = head.split(b"\r\n")
    assert line == b"HTTP/1.1 418 I am a teapot"
    assert fields[:4] == [b"Content-Encoding: br", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"Server: acme"]
    names = {field.partition(b":")[0].lower() for field in fields}
    own = {b"x-request-id", b"x-twinspan-provider", b"x-twinspan-attempts", b"x-twinspan-cache-status"}
    assert names == {b"content-encoding", b"set-cookie", b"server", b"content-length", b"connection"} | own


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308, 400, 401, 404, 429, 500, 503])
async def test_redirects_and_errors_are_answers_like_any_other(proxied: Running, wire: Wire, status: int) -> None:
    wire.play = answers(b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:1/evil\r\nContent-Length: 0\r\n\r\n" % status)
    answer = await proxied.rest.get("/proxy/acme/v1/models")
    assert answer.status_code == status
    assert answer.headers["Location"] == "http://127.0.0.1:1/evil"
    assert len(wire.taken) == 1
    assert proxied.complaints() == []


async def test_a_body_without_a_length_goes_in_chunks_with_its_trailers_both_ways(proxied: Running, wire: Wire) -> None:
    wire.play = answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\n"
    )
    request = (
        b"POST /proxy/acme/up HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
        + AUTHORIZED
        + b"\r\n5\r\nhello\r\n0\r\nX-Check: 9\r\nAuthorization: evil\r\n\r\n"
    )
    raw = await raw_exchange(port(proxied), request)
    assert raw.endswith(b"3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n")
    (taken,) = wire.taken
    assert taken.head.endswith(b"5\r\nhello\r\n0\r\nX-Check: 9\r\n\r\n")
    assert taken.field("Content-Length") is None


async def test_trailers_cross_both_channels(stub: ProxyServiceStub, proxied: Running, wire: Wire) -> None:
    wire.play = answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n")
    responses = await forward(
        stub,
        proxied,
        proxy_pb2.ForwardRequestHead(provider="acme", method="POST", path="/up"),
        proxy_pb2.ForwardRequest(body=b"hello"),
        proxy_pb2.ForwardRequest(trailers=proxy_pb2.ForwardTrailers(headers=[proxy_pb2.ForwardHeader(name="X-Check", value=b"9")])),
    )
    assert [response.WhichOneof("part") for response in responses] == ["head", "body", "trailers"]
    assert responses[-1].trailers.headers[0].name == "X-Sum"
    assert wire.taken[0].head.endswith(b"5\r\nhello\r\n0\r\nX-Check: 9\r\n\r\n")


async def test_a_request_without_a_length_and_without_a_body_has_none(stub: ProxyServiceStub, proxied: Running, wire: Wire) -> None:
    responses = await forward(stub, proxied, proxy_pb2.ForwardRequestHead(provider="acme", method="GET", path="/x"))
    assert body_of(responses) == b"ok"
    assert not wire.taken[0].names() & {"content-length", "transfer-encoding"}


async def test_informational_answers_are_passed_on(proxied: Running, wire: Wire) -> None:
    wire.play = answers(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    raw = await raw_exchange(port(proxied), b"GET /proxy/acme/x HTTP/1.1\r\nConnection: close\r\n" + AUTHORIZED + b"\r\n")
    assert raw.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_a_body_is_asked_for_when_the_provider_wants_it(proxied: Running, wire: Wire) -> None:
    async def play(taken: Taken, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        taken.head += await taken.body()
        writer.write(OK)

    wire.play = play
    request = b"POST /proxy/acme/x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" + AUTHORIZED + b"\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port(proxied))
    async with asyncio.timeout(5):
        writer.write(request)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()
    await writer.wait_closed()
    assert wire.taken[0].field("Expect") == "100-continue"
    assert wire.taken[0].head.endswith(b"hello")


async def test_a_provider_that_refuses_ahead_of_the_body_gets_none(proxied: Running, wire: Wire) -> None:
    async def play(_taken: Taken, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")

    wire.play = play
    request = b"POST /proxy/acme/x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" + AUTHORIZED + b"\r\n"
    raw = await raw_exchange(port(proxied), request)
    assert raw.startswith(b"HTTP/1.1 417 No\r\n")
    assert b"Connection: close\r\n" in raw


async def test_events_are_passed_on_one_by_one(proxied: Running, wire: Wire) -> None:
    seen = asyncio.Queue[None]()

    async def play(_taken: Taken, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            writer.write(b"data: %d\n\n" % number)
            await seen.get()  # the next one comes when the client has seen this one
        writer.close()

    wire.play = play
    came = []
    async with proxied.rest.stream("GET", "/proxy/acme/events") as answer:
        async for line in answer.aiter_lines():
            if line:
                came.append(line)
                seen.put_nowait(None)
    assert came == ["data: 0", "data: 1", "data: 2"]


async def test_a_client_that_hangs_up_closes_the_connection_to_the_provider(proxied: Running, wire: Wire) -> None:
    async def play(taken: Taken, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await taken.reader.read()  # until it is closed

    wire.play = play
    async with proxied.rest.stream("GET", "/proxy/acme/endless") as answer:
        async for _ in answer.aiter_raw():
            break
    async with asyncio.timeout(5):
        await wire.taken[0].gone.wait()
    assert proxied.complaints() == []


async def test_a_client_that_breaks_off_its_body_closes_the_connection_to_the_provider(proxied: Running, wire: Wire) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port(proxied))
    writer.write(b"POST /proxy/acme/x HTTP/1.1\r\nContent-Length: 500\r\n" + AUTHORIZED + b"\r\nhello")
    async with asyncio.timeout(5):
        await wire.arrived.wait()
        writer.close()
        await writer.wait_closed()
        await wire.taken[0].gone.wait()
    assert proxied.complaints() == []


async def test_a_body_that_breaks_off_is_no_clean_end(proxied: Running, wire: Wire) -> None:
    async def play(_taken: Taken, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        writer.close()

    wire.play = play
    with pytest.raises(httpx.RemoteProtocolError):
        await proxied.rest.get("/proxy/acme/x")
    stub = ProxyServiceStub(proxied.network)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await forward(stub, proxied, proxy_pb2.ForwardRequestHead(provider="acme", method="GET", path="/x"))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert proxied.complaints() == []


async def test_a_provider_that_cannot_be_reached_is_a_network_error(wire: Wire, proxied: Running) -> None:
    await wire.__aexit__()
    answer = await proxied.rest.get("/proxy/acme/v1/models")
    assert answer.status_code == 502
    assert answer.json()["error_kind"] == "network_error"
    assert answer.headers["X-Twinspan-Provider"] == "acme"


async def test_a_pooled_connection_that_was_closed_does_not_fail_a_request_without_a_body(proxied: Running, wire: Wire) -> None:
    async def play(taken: Taken, writer: asyncio.StreamWriter) -> None:
        if len(wire.taken) == 2:
            writer.close()  # as if it had been closed while it idled
            raise ConnectionResetError
        await answers(OK)(taken, writer)

    wire.play = play
    assert (await proxied.rest.get("/proxy/acme/a")).status_code == 200
    assert (await proxied.rest.get("/proxy/acme/b")).status_code == 200
    assert [taken.target for taken in wire.taken] == ["/a", "/b", "/b"]


async def test_a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not(wire: Wire) -> None:
    server = {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "max_upload_bytes": 1024}
    async with running_over(wire, server=server) as twinspan:
        told = await twinspan.rest.post("/proxy/acme/x", content=b"x" * 1025)
        assert (told.status_code, told.json()["error_kind"]) == (413, "payload_too_large")
        assert wire.taken == []

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x" * 500

        untold = await twinspan.rest.post("/proxy/acme/x", content=pieces())
        assert (untold.status_code, untold.json()["error_kind"]) == (413, "payload_too_large")
        assert (await twinspan.rest.post("/proxy/acme/x", content=b"x" * 1024)).status_code == 200


async def test_one_trace_runs_to_the_provider_and_the_call_is_counted(proxied: Running, wire: Wire) -> None:
    wire.play = answers(b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n")
    await proxied.rest.put("/proxy/acme/v1/x?secret=1", content=b"abc", headers={"User-Agent": "test"})
    (tree,) = await proxied.spans.trees(2)  # the RPC's span ends before the request's
    assert tree.name == "PUT /proxy/{provider}/{path=**}"
    (client,) = tree.children
    (server,) = client.children
    (attempt,) = server.children
    assert (server.name, attempt.name) == ("twinspan.v1.ProxyService/Forward", "attempt acme")
    assert attempt.attributes["http.response.status_code"] == 429
    assert attempt.attributes["http.request.method"] == "PUT"
    assert attempt.attributes["error.type"] == "rate_limited"
    assert "secret" not in str(dict(attempt.attributes))
    assert wire.taken[0].field("traceparent")
    metrics = (await proxied.rest.get("/metrics")).text
    assert any("ProxyService" in line and "Forward" in line for line in metrics.splitlines())


async def test_a_named_provider_that_is_not_there_is_not_found(proxied: Running) -> None:
    answer = await proxied.rest.get("/proxy/nobody/v1/models")
    assert (answer.status_code, answer.json()["error_kind"]) == (404, "not_found")


async def test_the_official_sdk_works_through_the_proxy(upstream: Upstream) -> None:
    async with (
        running_over(upstream) as twinspan,
        twinspan.openai().with_options(base_url=f"{twinspan.url}/proxy/acme/v1") as client,
    ):
        stream = await client.chat.completions.create(
            model="model-1", messages=[{"role": "user", "content": "Hello?"}], stream=True
        )
        said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(said) == "Hello there."
    assert upstream.requests[0].path == "/v1/chat/completions"
