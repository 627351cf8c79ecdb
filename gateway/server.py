"""The core on the network: one grpc.aio server, with health, reflection and channelz beside the services of a registry.

Above it: `gateway.app`, which registers the services and starts and stops the server. Below it: grpc.aio. What happens to an RPC is
not decided here but in the registry's wrappers, which health, reflection and channelz run through like all others.
"""

import asyncio
import contextlib
import errno
import os
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from gateway import sockets
from gateway.rpc.registry import HandlerRegistry

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_ALL_INTERFACES = "[::]"
_LARGEST_PORT = 65535
_AGE_JITTER = 1.1  # by which gRPC spreads the ends of connections
_LEAVING_SECONDS = 2.0
_LOOK_SECONDS = 0.1
_HOST = re.compile(r"[A-Za-z0-9._\-]*|\[[0-9A-Fa-f:.]+(%\w+)?\]")


class ServerStartError(Exception):
    """The server cannot start, and the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files of a server with TLS are."""

    cert: Path
    """The server's certificate, and after it those of the authorities between it and the root."""
    key: Path
    """The certificate's private key."""
    client_ca: Path | None = None
    """The authorities that clients' certificates must come from. None: clients need no certificate."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """When a silent connection is taken for dead, on either side."""

    interval_seconds: float = 60
    """How long a connection may be silent before the server pings."""
    timeout_seconds: float = 20
    """How long the server waits for the answer to its ping before it closes the connection."""
    min_client_interval_seconds: float = 10
    """How often a client may ping; one that does it oftener is sent away."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the core is on the network."""

    address: str = ":50051"
    """`host:port`. Without a host all interfaces; with port 0 a free port."""
    tls: TlsFiles | None = None
    """None: plain text."""
    max_message_bytes: int = 64 * 1024 * 1024
    """The largest message in either direction; a larger one is `RESOURCE_EXHAUSTED`."""
    keepalive: Keepalive = field(default_factory=Keepalive)
    """When a silent connection is taken for dead."""
    drain_seconds: float = 30
    """How long `stop` waits for the calls under way."""
    reuse_port: bool = False
    """Whether several processes may share the port. If not, a second one fails to start, and does not take half of the calls."""
    connection_seconds: float | None = None
    """How long a client may use a connection before it is told to make another one, which may come to another process; None for
    ever. Calls under way end where they are, and none is lost."""


class GrpcServer:
    """Serves a registry's handlers, and health, reflection and channelz, on one port."""

    def __init__(self, registry: HandlerRegistry, settings: ServerSettings) -> None:
        """Makes a server that is not started.

        Args:
            registry: What is served. Health is registered here at once, so that the in-process channel has it too; the services
                that reflection is to list must be registered before `start`.
            settings: How.
        """
        self._registry = registry
        self._settings = settings
        self._health = _Health()
        self._server: grpc.aio.Server | None = None
        self._port = 0
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registry)

    @property
    def health(self) -> health.aio.HealthServicer:
        """The health service: `await health.set(name, status)` tells watchers and probes how a service is."""
        return self._health

    async def tell(self, name: str, works: bool) -> None:
        """Has health say how a part of the gateway is without which it serves all the same."""
        await self._health.set(name, _SERVING if works else health_pb2.HealthCheckResponse.NOT_SERVING)

    async def start(self) -> int:
        """Listens, and serves.

        Returns:
            The port.

        Raises:
            ServerStartError: The address cannot be listened on, or the files for TLS cannot be read.
        """
        if self._server is not None:
            raise ServerStartError("A server starts once: make another one.")
        address = self._settings.address
        target = _listen_target(address)
        credentials = None if self._settings.tls is None else _credentials(self._settings.tls)
        fault = _fault_of(target, reuse_port=self._settings.reuse_port)
        if fault is not None and fault.errno == errno.EADDRINUSE:  # the common one, so without grpc's own words for it on stderr
            raise ServerStartError(_advice(address, fault)) from fault
        server = grpc.aio.server(options=channel_options(self._settings))
        try:
            port = server.add_insecure_port(target) if credentials is None else server.add_secure_port(target, credentials)
        except RuntimeError as error:
            raise ServerStartError(_advice(address, fault)) from error
        self._register_introspection()
        self._registry.add_to(server)
        await server.start()
        self._server, self._port = server, port
        for name in self._registry.service_names:
            await self._health.set(name, _SERVING)
        return port

    async def hand_over(self) -> None:
        """Stops listening, and returns once clients have left for whoever listens in its place: see `connection_seconds`.

        grpc.aio's own stop cancels calls that come in on connections that are there, before their clients know of it.
        """
        seconds = self._settings.connection_seconds
        if self._server is None or seconds is None:
            return
        await asyncio.to_thread(sockets.stop_listening, self._port)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGE_JITTER * seconds + _LEAVING_SECONDS):
                while await asyncio.to_thread(sockets.connections, self._port):  # noqa: ASYNC110 (nothing tells of it)
                    await asyncio.sleep(_LOOK_SECONDS)

    async def stop(self) -> None:
        """Stops: health says `NOT_SERVING`, no new call is taken, those under way have `drain_seconds`, the rest is cancelled.

        Idempotent. Returns when no handler runs any more.
        """
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(self._settings.drain_seconds)

    def _register_introspection(self) -> None:
        channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.aio.ChannelzServicer(), self._registry)
        names = (*self._registry.service_names, reflection.SERVICE_NAME)
        servicer = reflection.aio.ReflectionServicer(names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, self._registry)


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """grpc's own health service, except that its watches end with the server: open ones would hold up every drain to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.ending = False
        self._watches: set[_Watch] = set()

    async def List(self, _request: Any, _context: Any) -> Any:  # noqa: N802 (the service's name for it)
        """Says how every service is. grpc's own health service lacks this method, and its type stubs lack all of it."""
        known = self._server_status
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in known.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802 (the service's name for it)
        watch = _Watch(self, context)
        watch.task = asyncio.create_task(super().Watch(request, watch))
        self._watches.add(watch)
        try:
            await asyncio.wait({watch.task})
        finally:
            self._watches.discard(watch)
            watch.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch.task

    async def enter_graceful_shutdown(self) -> None:
        self.ending = True
        for watch in self._watches:
            if watch.said != _SERVING and watch.task is not None:  # nothing will change for it, so it has no last word
                watch.task.cancel()
        await super().enter_graceful_shutdown()


class _Watch:
    """The context of one watch. Its last word is what it writes when the server ends."""

    def __init__(self, service: _Health, context: Any) -> None:
        self._service = service
        self._context = context
        self.said: int | None = None
        self.task: asyncio.Task[None] | None = None

    async def write(self, message: health_pb2.HealthCheckResponse) -> None:
        await self._context.write(message)
        self.said = message.status
        if self._service.ending and self.task is not None:
            self.task.cancel()


def channel_options(settings: ServerSettings) -> tuple[tuple[str, int], ...]:
    """Returns the options that make a `grpc.aio.server` what the settings say.

    Source: https://github.com/grpc/grpc/blob/master/include/grpc/impl/channel_arg_names.h
    """
    keepalive = settings.keepalive
    age = settings.connection_seconds
    return (
        *((("grpc.max_connection_age_ms", round(age * 1000)),) if age is not None else ()),
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", round(keepalive.interval_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", round(keepalive.timeout_seconds * 1000)),
        # Since https://github.com/grpc/grpc/pull/34647 a ping has a timeout of its own, a minute long, and that is what counts.
        ("grpc.http2.ping_timeout_ms", round(keepalive.timeout_seconds * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", round(keepalive.min_client_interval_seconds * 1000)),
    )


def _listen_target(address: str) -> str:
    host, separator, port = address.rpartition(":")
    is_port = port.isascii() and port.isdigit() and int(port) <= _LARGEST_PORT
    if not (separator and is_port and _HOST.fullmatch(host)):
        raise ServerStartError(
            f"The gRPC address {address!r} is not of the form host:port: write for example 127.0.0.1:50051, or :50051."
        )
    return f"{host or _ALL_INTERFACES}:{port}"


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    pair = (_pem(files.key, "key"), _pem(files.cert, "cert"))
    client_ca = None if files.client_ca is None else _pem(files.client_ca, "client_ca")
    try:
        # What grpc would refuse with no reason but in its own log.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert, files.key, password="")
    except ssl.SSLError as error:
        why = "are no pair" if error.reason == "KEY_VALUES_MISMATCH" else f"cannot be used ({error.reason or error})"
        raise ServerStartError(
            f"The tls.cert file {files.cert} and the tls.key file {files.key} {why}: "
            "give the key that the certificate was made for, without a passphrase."
        ) from error
    return grpc.ssl_server_credentials([pair], root_certificates=client_ca, require_client_auth=client_ca is not None)


def _pem(path: Path, name: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ServerStartError(f"The tls.{name} file {path} cannot be read: {error.strerror}.") from error
    if b"-----BEGIN " not in content:
        raise ServerStartError(f"The tls.{name} file {path} holds no PEM block: convert it to PEM.")
    return content


def _fault_of(target: str, *, reuse_port: bool) -> OSError | None:
    """Returns what the system has against listening there. What gRPC has against it, it writes only to its own log."""
    host, _, port = target.rpartition(":")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if reuse_port else socket.SO_REUSEADDR, 1)
            if target.startswith(_ALL_INTERFACES):
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind((host.strip("[]"), int(port)))
    except OSError as error:
        return error
    return None


def _advice(address: str, fault: OSError | None) -> str:
    """Says why an address cannot be listened on, and what to do about it."""
    if fault is None:
        return f"Cannot listen on {address}, and gRPC says why in its own log alone: set server.grpc_addr to another address."
    if fault.errno == errno.EADDRINUSE:
        reason, remedy = os.strerror(fault.errno), "Stop what uses the address, or set server.grpc_addr to another one"
    elif fault.errno == errno.EACCES:
        reason, remedy = os.strerror(fault.errno), "Set server.grpc_addr to a port above 1023"
    else:
        reason, remedy = fault.strerror or str(fault), "Set server.grpc_addr to an address of this machine"
    return f"Cannot listen on {address}: {reason}. {remedy}."
