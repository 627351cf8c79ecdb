"""The core on the network, by what clients of a socket can see of it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.wrappers_pb2 import StringValue
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from twinspan.v1 import models_pb2, models_pb2_grpc

from gateway.inprocess import InProcessChannel
from gateway.rpc.registry import HandlerRegistry
from gateway.server import GrpcServer, Keepalive, ServerSettings, ServerStartError, TlsFiles
from tests.contract.channel_harness import eventually, failure, message, soon
from tests.gateway.http2_peer import Http2Peer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LOOPBACK = "127.0.0.1:0"
OWN = "twinspan.v1.ModelsService"


class Models:
    """A servicer whose one method does what a test wants, and one to be asked in passing."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.left = asyncio.Event()
        self.cancelled = False
        self.remaining_seconds: float | None = None

    async def Get(  # noqa: N802 (the RPC's name)
        self, request: models_pb2.ModelsServiceGetRequest, context: Any
    ) -> models_pb2.Model:
        self.remaining_seconds = context.time_remaining()
        self.entered.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            await asyncio.sleep(0)  # who cleans up may have to wait for it
            raise
        finally:
            self.left.set()
        return models_pb2.Model(id=request.id)

    async def List(  # noqa: N802 (the RPC's name)
        self, request: models_pb2.ModelsServiceListRequest, _context: Any
    ) -> models_pb2.ModelsServiceListResponse:
        """Answers with as many bytes as it was asked with."""
        return models_pb2.ModelsServiceListResponse(next_page_token=request.page_token)


@pytest.fixture
def models() -> Models:
    return Models()


def registered(models: Models) -> HandlerRegistry:
    registry = HandlerRegistry()
    models_pb2_grpc.add_ModelsServiceServicer_to_server(models, registry)  # type: ignore[arg-type]  # it takes handlers too
    return registry


Serve = Callable[..., Awaitable[tuple[GrpcServer, str]]]


@pytest.fixture
async def serve(models: Models) -> AsyncIterator[Serve]:
    """Starts servers, returns each with its target, and stops them after the test."""
    servers: list[GrpcServer] = []

    async def start(registry: HandlerRegistry | None = None, **settings: Any) -> tuple[GrpcServer, str]:
        server = GrpcServer(registry or registered(models), ServerSettings(**{"address": LOOPBACK, "drain_seconds": 0, **settings}))
        servers.append(server)
        return server, f"127.0.0.1:{await server.start()}"

    yield start
    for server in servers:
        await soon(server.stop())


@asynccontextmanager
async def connected(target: str, credentials: grpc.ChannelCredentials | None = None, **options: int) -> AsyncIterator[Any]:
    """Connects, and makes sure that the channel shares its connection with no other one of this process."""
    arguments = [(f"grpc.{name}", value) for name, value in {"use_local_subchannel_pool": 1, **options}.items()]
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, arguments)
    else:
        channel = grpc.aio.secure_channel(target, credentials, arguments)
    async with channel:
        yield channel


def get(channel: grpc.aio.Channel, **options: Any) -> Any:
    return models_pb2_grpc.ModelsServiceStub(channel).Get(models_pb2.ModelsServiceGetRequest(id="m"), **options)


def echo(channel: grpc.aio.Channel, size: int) -> Any:
    return models_pb2_grpc.ModelsServiceStub(channel).List(models_pb2.ModelsServiceListRequest(page_token="x" * size))


async def code_of(call: Any) -> grpc.StatusCode:
    error: grpc.aio.AioRpcError = await soon(failure(call, "unary_unary"))
    return error.code()


async def rest_of(watch: Any) -> list[int]:
    """Returns what a watcher is still told, to the end of the stream."""
    statuses = []
    while (response := await watch.read()) is not grpc.aio.EOF:
        statuses.append(response.status)
    return statuses


class TestHealth:
    async def check(self, channel: grpc.aio.Channel, service: str) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
        stub = health_pb2_grpc.HealthStub(channel)
        response: health_pb2.HealthCheckResponse = await soon(stub.Check(health_pb2.HealthCheckRequest(service=service)))
        return response.status

    async def test_every_service_that_is_registered_is_serving(self, serve: Serve) -> None:
        _, target = await serve()

        async with connected(target) as channel:
            for service in ("", OWN, "grpc.health.v1.Health"):
                assert await self.check(channel, service) == SERVING
            unknown = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
            assert await code_of(unknown) is grpc.StatusCode.NOT_FOUND

    async def test_all_are_listed(self, serve: Serve) -> None:
        _, target = await serve()

        async with connected(target) as channel:
            lister = channel.unary_unary("/grpc.health.v1.Health/List", None, health_pb2.HealthListResponse.FromString)
            statuses = (await soon(lister(b""))).statuses
        assert {"", OWN} <= set(statuses)
        assert {status.status for status in statuses.values()} == {SERVING}

    async def test_the_in_process_channel_sees_the_same(self, serve: Serve, models: Models) -> None:
        registry = registered(models)
        server, _ = await serve(registry)

        async with InProcessChannel(registry) as channel:
            assert await self.check(channel, OWN) == SERVING
            await soon(server.stop())
            assert await self.check(channel, OWN) == NOT_SERVING

    async def test_a_watcher_is_told_that_the_server_ends_and_does_not_hold_it_up(self, serve: Serve) -> None:
        server, target = await serve(drain_seconds=60)

        async with connected(target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", OWN, "no.such.Service")]
            before = [(await soon(watch.read())).status for watch in watches]
            await soon(server.stop())
            after = [await soon(rest_of(watch)) for watch in watches]
        assert before == [SERVING, SERVING, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN]
        assert after == [[NOT_SERVING], [NOT_SERVING], []]

    async def test_a_watcher_that_hangs_up_is_forgotten(self, serve: Serve) -> None:
        server, target = await serve(drain_seconds=60)
        before = asyncio.all_tasks()

        async with connected(target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=OWN))
            await soon(watch.read())
            assert watch.cancel()
            await eventually(lambda: not any("Watch" in repr(task) for task in asyncio.all_tasks() - before))
            await soon(server.stop())


class TestIntrospection:
    async def test_reflection_lists_the_services_and_shows_their_messages(self, serve: Serve) -> None:
        _, target = await serve()

        def reflect() -> tuple[list[str], list[str]]:
            with grpc.insecure_channel(target) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                service = DescriptorPool(database).FindServiceByName(OWN)
                return sorted(database.get_services()), [method.name for method in service.methods]

        services, methods = await soon(asyncio.to_thread(reflect))
        assert services == [
            "grpc.channelz.v1.Channelz",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            OWN,
        ]
        assert methods == ["List", "Get"]

    async def test_channelz_shows_the_server_and_its_calls(self, serve: Serve) -> None:
        _, target = await serve()

        async with connected(target) as channel:
            for _ in range(3):
                await soon(echo(channel, 1))
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            servers = (await soon(stub.GetServers(channelz_pb2.GetServersRequest()))).server
            sockets = [
                (await soon(stub.GetSocket(channelz_pb2.GetSocketRequest(socket_id=listening.socket_id)))).socket
                for server in servers
                if server.data.calls_succeeded >= 3
                for listening in server.listen_socket
            ]
        assert socket.inet_aton("127.0.0.1") in [each.local.tcpip_address.ip_address for each in sockets]


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def files(self, tmp_path: Path, authority: trustme.CA) -> TlsFiles:
        issued = authority.issue_cert("127.0.0.1")
        cert, key, client_ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        authority.cert_pem.write_to_path(client_ca)
        return TlsFiles(cert, key, client_ca)

    def client(self, trusted: trustme.CA, issuer: trustme.CA | None = None) -> grpc.ChannelCredentials:
        """Credentials of a client that trusts one authority, with a certificate from another one or with none."""
        if issuer is None:
            return grpc.ssl_channel_credentials(trusted.cert_pem.bytes())
        own = issuer.issue_cert("client.example")
        return grpc.ssl_channel_credentials(trusted.cert_pem.bytes(), own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())

    async def test_a_client_needs_no_certificate_unless_it_is_asked_for(
        self, serve: Serve, files: TlsFiles, authority: trustme.CA
    ) -> None:
        _, target = await serve(tls=TlsFiles(files.cert, files.key))

        async with connected(target, self.client(authority)) as channel:
            assert (await soon(echo(channel, 3))).next_page_token == "xxx"

    async def test_plain_text_and_an_authority_that_the_client_does_not_trust_come_to_nothing(
        self, serve: Serve, files: TlsFiles
    ) -> None:
        _, target = await serve(tls=TlsFiles(files.cert, files.key))

        async with connected(target) as plain, connected(target, self.client(trustme.CA())) as distrustful:
            assert await code_of(echo(plain, 1)) is grpc.StatusCode.UNAVAILABLE
            assert await code_of(echo(distrustful, 1)) is grpc.StatusCode.UNAVAILABLE

    async def test_where_clients_need_a_certificate_only_one_of_the_right_authority_will_do(
        self, serve: Serve, files: TlsFiles, authority: trustme.CA
    ) -> None:
        _, target = await serve(tls=files)

        async with (
            connected(target, self.client(authority, authority)) as known,
            connected(target, self.client(authority, trustme.CA())) as stranger,
            connected(target, self.client(authority)) as nobody,
        ):
            assert (await soon(echo(known, 3))).next_page_token == "xxx"
            assert await code_of(echo(stranger, 1)) is grpc.StatusCode.UNAVAILABLE
            assert await code_of(echo(nobody, 1)) is grpc.StatusCode.UNAVAILABLE

    @pytest.mark.parametrize("name", ["cert", "key", "client_ca"])
    async def test_a_file_that_is_missing_or_no_pem_is_named(self, serve: Serve, files: TlsFiles, name: str) -> None:
        path: Path = getattr(files, name)
        path.write_bytes(b"\x30\x82 DER, perhaps")
        with pytest.raises(ServerStartError, match=rf"tls\.{name} file {path} holds no PEM block: convert it to PEM\."):
            await serve(tls=files)

        path.unlink()
        with pytest.raises(ServerStartError, match=rf"tls\.{name} file {path} cannot be read: No such file"):
            await serve(tls=files)

    async def test_a_key_of_another_certificate_is_refused_at_the_start(
        self, serve: Serve, files: TlsFiles, authority: trustme.CA
    ) -> None:
        authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(files.key)

        with pytest.raises(ServerStartError, match=rf"tls\.cert file {files.cert} and the tls\.key file {files.key} are no pair"):
            await serve(tls=files)


class TestLimits:
    async def test_a_message_over_the_limit_is_resource_exhausted_in_both_directions(self, serve: Serve) -> None:
        async def double(request: StringValue, _context: Any) -> StringValue:
            return message(request.value * 2)

        handler = grpc.unary_unary_rpc_method_handler(double, StringValue.FromString, StringValue.SerializeToString)
        registry = HandlerRegistry()
        registry.add_registered_method_handlers("test.Doubler", {"Double": handler})
        _, target = await serve(registry, max_message_bytes=100_000)

        async with connected(target) as channel:
            call = channel.unary_unary("/test.Doubler/Double", StringValue.SerializeToString, StringValue.FromString)
            assert len((await soon(call(message("x" * 49_000)))).value) == 98_000
            assert await code_of(call(message("x" * 51_000))) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await code_of(call(message("x" * 101_000))) is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def test_a_message_larger_than_grpcs_own_limit_passes(self, serve: Serve) -> None:
        _, target = await serve()
        size = 5 * 1024 * 1024

        async with connected(target, max_receive_message_length=-1) as channel:
            assert len((await soon(echo(channel, size))).next_page_token) == size


class TestKeepalive:
    async def test_a_client_that_pings_too_often_is_sent_away(self, serve: Serve) -> None:
        _, target = await serve(keepalive=Keepalive(min_client_interval_seconds=60))

        async with Http2Peer.connected(target) as peer:
            peer.ping(5)
            _, content = await soon(peer.read(Http2Peer.GOAWAY))
        assert content.endswith(b"too_many_pings")

    async def test_a_client_may_ping_as_often_as_it_is_allowed_to(self, serve: Serve) -> None:
        _, target = await serve(keepalive=Keepalive(min_client_interval_seconds=0))

        async with Http2Peer.connected(target) as peer:
            peer.ping(5)
            answers = [await soon(peer.read(Http2Peer.PING)) for _ in range(5)]
        assert answers == [(Http2Peer.ACK, b"8 octets")] * 5

    async def test_a_peer_that_answers_no_ping_is_taken_for_dead(self, serve: Serve) -> None:
        _, target = await serve(keepalive=Keepalive(interval_seconds=0.1, timeout_seconds=0.1))

        async with Http2Peer.connected(target) as peer:
            flags, _ = await soon(peer.read(Http2Peer.PING))
            with pytest.raises((EOFError, ConnectionResetError)):
                await soon(peer.read(Http2Peer.PING))
        assert flags == 0


class TestAddress:
    @pytest.fixture
    def taken(self) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield listening.getsockname()[1]

    async def test_a_port_in_use_is_an_error_that_says_what_to_do(self, serve: Serve, taken: int) -> None:
        with pytest.raises(ServerStartError) as raised:
            await serve(address=f"127.0.0.1:{taken}")

        assert str(raised.value) == (
            f"Cannot listen on 127.0.0.1:{taken}: Address already in use. "
            "Stop what uses the address, or set server.grpc_addr to another one."
        )

    async def test_a_second_server_does_not_take_half_of_the_firsts_calls(self, serve: Serve) -> None:
        _, target = await serve()

        with pytest.raises(ServerStartError, match="Address already in use"):
            await serve(address=target)

    async def test_servers_can_share_a_port_if_told_to(self, serve: Serve) -> None:
        _, first = await serve(reuse_port=True)
        _, second = await serve(address=first, reuse_port=True)

        assert first == second

    async def test_an_address_of_another_machine_is_an_error_that_says_what_to_do(self, serve: Serve) -> None:
        with pytest.raises(ServerStartError) as raised:
            await serve(address="192.0.2.1:0")

        assert str(raised.value) == (
            "Cannot listen on 192.0.2.1:0: Cannot assign requested address. Set server.grpc_addr to an address of this machine."
        )

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "127.0.0.1",
            "50051",
            "127.0.0.1:",
            "127.0.0.1:http",
            "127.0.0.1:65536",
            "127.0.0.1:-1",
            "127.0.0.1:²",
            "unix:/a:1",
            "unix:/tmp/core.sock",
            "::1:50051",
            "a b:1",
            "http://127.0.0.1:50051",
        ],
    )
    async def test_an_address_of_another_form_is_an_error_that_shows_the_right_one(self, serve: Serve, address: str) -> None:
        with pytest.raises(
            ServerStartError, match=r"is not of the form host:port: write for example 127\.0\.0\.1:50051, or :50051"
        ):
            await serve(address=address)

    async def test_a_failed_start_can_be_mended_with_another_server(self, serve: Serve, taken: int) -> None:
        with pytest.raises(ServerStartError):
            await serve(address=f"127.0.0.1:{taken}")
        _, target = await serve()

        async with connected(target) as channel:
            assert (await soon(echo(channel, 1))).next_page_token == "x"

    async def test_a_server_starts_once(self, serve: Serve) -> None:
        server, _ = await serve()

        with pytest.raises(ServerStartError, match="starts once"):
            await server.start()


class TestEnd:
    async def test_a_call_under_way_ends_well_while_new_ones_are_refused(self, serve: Serve, models: Models) -> None:
        server, target = await serve(drain_seconds=60)

        async with connected(target) as channel:
            call = get(channel)
            await soon(models.entered.wait())
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0)  # the first step of the stop, with which the server takes no more
            # CANCELLED is what grpc says as long as the client cannot have heard of the end.
            assert await code_of(echo(channel, 1)) in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            async with connected(target) as late:
                assert await code_of(echo(late, 1)) is grpc.StatusCode.UNAVAILABLE
            assert not stopping.done()

            models.go_on.set()
            assert (await soon(call)).id == "m"
            await soon(stopping)

    async def test_what_is_left_after_the_grace_is_cancelled_and_gone_when_the_stop_returns(
        self, serve: Serve, models: Models
    ) -> None:
        server, target = await serve(drain_seconds=0.1)

        async with connected(target) as channel:
            call = get(channel)
            await soon(models.entered.wait())
            await soon(server.stop())
            assert (models.cancelled, models.left.is_set()) == (True, True)
            assert await code_of(call) in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

    async def test_a_server_can_be_stopped_twice_and_without_a_start(self, serve: Serve) -> None:
        server, _ = await serve()

        await soon(asyncio.gather(server.stop(), server.stop()))
        await soon(GrpcServer(HandlerRegistry(), ServerSettings()).stop())

    async def test_the_port_is_free_afterwards(self, serve: Serve) -> None:
        server, target = await serve()
        await soon(server.stop())

        _, again = await serve(address=target)
        assert again == target


class TestCalls:
    async def test_the_clients_deadline_reaches_the_servicer_and_cancels_it(self, serve: Serve, models: Models) -> None:
        _, target = await serve()

        async with connected(target) as channel:
            await soon(channel.channel_ready())
            assert await code_of(get(channel, timeout=0.3)) is grpc.StatusCode.DEADLINE_EXCEEDED
            await soon(models.left.wait())
        assert models.remaining_seconds is not None
        assert 0 < models.remaining_seconds < 1
        assert models.cancelled

    async def test_a_client_that_cancels_cancels_the_servicer(self, serve: Serve, models: Models) -> None:
        _, target = await serve()

        async with connected(target) as channel:
            call = get(channel)
            await soon(models.entered.wait())
            call.cancel()
            await soon(models.left.wait())
        assert models.cancelled
        assert models.remaining_seconds is None

    async def test_a_client_whose_connection_breaks_cancels_the_servicer(self, serve: Serve, models: Models) -> None:
        _, target = await serve()

        async with connected(target) as channel:
            call = asyncio.ensure_future(soon(failure(get(channel), "unary_unary")))
            await soon(models.entered.wait())
            await soon(channel.close())
            await soon(models.left.wait())
            with pytest.raises(asyncio.CancelledError):
                await call
        assert models.cancelled
