"""WebSockets through the gateway: /proxy/{provider}/v1/realtime and /v1/realtime, against aiohttp's client and server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError, web
from aiohttp.typedefs import LooseHeaders
from twinspan.v1 import proxy_pb2
from twinspan.v1.proxy_pb2_grpc import ProxyServiceStub
from yarl import URL

from tests.flows.running import TOKEN, Running, configuration, running


class Session:
    """A provider of realtime sessions, which repeats what it hears."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.close: tuple[int | None, str | None] = (None, None)
        self.gone = asyncio.Event()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if request.headers.get("Authorization") != "Bearer upstream-secret-key":
            return web.json_response({"error": {"message": "no"}}, status=401)
        socket = web.WebSocketResponse(protocols=("realtime",), autoping=False)
        await socket.prepare(request)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and message.data == "bye":
                    await socket.close(code=4001, message=b"enough")
                elif message.type is WSMsgType.TEXT:
                    await socket.send_str(f"heard {message.data}")
                elif message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data[::-1])
                elif message.type is WSMsgType.PING:
                    await socket.pong(message.data)
            self.close = (socket.close_code, None)
        finally:
            self.gone.set()
        return socket


@pytest.fixture
async def session() -> Session:
    return Session()


@pytest.fixture
async def twinspan(session: Session) -> AsyncIterator[Running]:
    runner = web.ServerRunner(web.Server(session.serve), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    agents = {"voice": {"models": ["model-1"]}}
    keys = [{"name": "bound", "token": "ts-bound-0123456789ab", "allowed_agents": ["other"]}]
    try:
        async with running(configuration(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", agents=agents, api_keys=keys)) as started:
            yield started
    finally:
        await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession() as started:
        yield started


async def heard(socket: ClientWebSocketResponse) -> Any:
    async with asyncio.timeout(5):
        return (await socket.receive()).data


WAYS = [
    ({"Authorization": f"Bearer {TOKEN}"}, ("realtime",), ""),
    ({}, ("realtime", f"openai-insecure-api-key.{TOKEN}", "openai-beta.realtime-v1"), ""),
    ({"api-key": TOKEN}, ("realtime",), ""),
    ({}, ("realtime",), f"&api-key={TOKEN}"),
]


@pytest.mark.parametrize("path", ["/v1/realtime?model=voice", "/proxy/acme/v1/realtime?model=model-1"])
@pytest.mark.parametrize(("headers", "protocols", "query"), WAYS, ids=["authorization", "subprotocol", "api-key header", "query"])
async def test_a_session_carries_frames_both_ways_however_the_client_authenticates(
    twinspan: Running,
    session: Session,
    client: ClientSession,
    path: str,
    headers: LooseHeaders,
    protocols: tuple[str, ...],
    query: str,
) -> None:
    url = f"{twinspan.url}{path}&extra=1{query}"
    async with client.ws_connect(url, headers=headers, protocols=protocols, autoping=False) as socket:
        assert socket.protocol == "realtime"
        await socket.send_str("hello")
        assert await heard(socket) == "heard hello"
        await socket.send_bytes(b"abc" * 100_000)
        assert await heard(socket) == b"cba" * 100_000
        await socket.ping(b"p")
        assert bytes(await heard(socket)) == b"p"
        await socket.send_str("bye")
        message = await socket.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4001, "enough")
    (request,) = session.requests
    assert request.rel_url.path == "/v1/realtime"
    assert dict(request.query) == {"model": "model-1", "extra": "1"}
    assert TOKEN not in str(request.headers) + request.raw_path
    assert twinspan.complaints() == []


async def test_a_clients_close_reaches_the_provider(twinspan: Running, session: Session, client: ClientSession) -> None:
    async with client.ws_connect(f"{twinspan.url}/v1/realtime?model=voice", headers={"api-key": TOKEN}) as socket:
        await socket.close(code=4002, message=b"done")
    async with asyncio.timeout(5):
        await session.gone.wait()
    assert session.close == (4002, None)


async def test_a_client_that_vanishes_closes_the_providers_socket(
    twinspan: Running, session: Session, client: ClientSession
) -> None:
    socket = await client.ws_connect(f"{twinspan.url}/v1/realtime?model=voice", headers={"api-key": TOKEN})
    await socket.send_str("hello")
    assert await heard(socket) == "heard hello"
    transport = socket._response.connection
    assert transport is not None
    assert transport.transport is not None
    transport.transport.abort()
    async with asyncio.timeout(5):
        await session.gone.wait()


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/v1/realtime?model=voice", "ts-unknown-0123456789", 401),
        ("/v1/realtime?model=voice", "ts-bound-0123456789ab", 403),
        ("/v1/realtime?model=nobody", TOKEN, 404),
        ("/v1/realtime", TOKEN, 400),
        ("/v1/realtime?model=a&model=b", TOKEN, 400),
        ("/proxy/nobody/v1/realtime", TOKEN, 404),
        ("/proxy/acme/v1/%2e%2e/realtime", TOKEN, 400),
    ],
)
async def test_a_session_that_may_not_be_is_refused_before_it_begins(
    twinspan: Running, session: Session, client: ClientSession, path: str, token: str, status: int
) -> None:

    with pytest.raises(WSServerHandshakeError) as raised:
        await client.ws_connect(URL(f"{twinspan.url}{path}", encoded=True), headers={"api-key": token})
    assert raised.value.status == status
    assert session.requests == []
    assert twinspan.complaints() == []


async def test_a_request_that_is_no_websocket_is_told_so(twinspan: Running) -> None:
    answer = await twinspan.rest.get("/v1/realtime?model=voice")
    assert (answer.status_code, answer.json()["error_kind"]) == (400, "invalid_request")


@pytest.mark.parametrize("surface", ["inprocess", "network"])
async def test_a_stub_speaks_in_frames(twinspan: Running, surface: str) -> None:
    channel = twinspan.inprocess if surface == "inprocess" else twinspan.network
    call: Any = ProxyServiceStub(channel).Forward(metadata=twinspan.metadata, timeout=5)
    head = proxy_pb2.ForwardRequestHead(model="voice", method="GET", path="/realtime", websocket=True)
    await call.write(proxy_pb2.ForwardRequest(head=head))
    assert (await call.read()).head.status == 101
    await call.write(proxy_pb2.ForwardRequest(frame=proxy_pb2.ForwardFrame(text="hello")))
    assert (await call.read()).frame.text == "heard hello"
    await call.write(proxy_pb2.ForwardRequest(frame=proxy_pb2.ForwardFrame(text="bye")))
    close = (await call.read()).frame.close
    assert (close.code, close.reason) == (4001, "enough")
    call.cancel()
