"""`twinspan serve`, `core` and `bridge`: the gateway's parts as processes in the foreground."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, start_http_server

from bridge import app as bridge_app
from bridge.app import BridgeSettings
from bridge.cli import memory
from bridge.cli.configuration import explained, load
from bridge.cli.problem import Problem
from bridge.server import BridgeServer, ServerSettings
from bridge.telemetry.http import HttpTelemetry
from bridge.telemetry.metrics import Exposition, HttpMetrics
from gateway import app as core_app
from gateway.app import Configuration, Core, Export, Membership

_log = logging.getLogger(__name__)

_CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
)
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def run_serve(arguments: argparse.Namespace) -> int:
    """Runs core and bridge until it is told to stop: in this process, or in several that it supervises."""
    configuration = load(arguments.config)
    workers = arguments.workers or configuration.current.config.server.workers
    if workers > 1:
        from bridge.cli.workers.supervisor import supervise  # noqa: PLC0415 (most gateways are one process)

        return await supervise(configuration, arguments.config, workers)
    async with gateway(configuration) as running, _signals(running.core.reload) as stop:
        memory.settle()
        print(running.greeting(), flush=True)
        await stop.wait()
    return 0


async def run_core(arguments: argparse.Namespace) -> None:
    """Runs the core in this process until it is told to stop."""
    configuration = load(arguments.config)
    core_app.configure_logging(configuration)
    async with AsyncExitStack() as stack:
        export = _exporting(stack, configuration)
        registry = CollectorRegistry()
        core = await _core(stack, configuration, export, registry)
        stop = await stack.enter_async_context(_signals(core.reload))
        memory.settle()
        print(f"gRPC    {core.grpc_url}\n{_token_line(core.new_token)}", end="", flush=True)
        _serve_metrics(stack, configuration, registry)
        await stop.wait()


async def run_bridge(arguments: argparse.Namespace) -> None:
    """Runs the bridge in this process, over a core elsewhere, until it is told to stop."""
    configuration = load(arguments.config)
    core_app.configure_logging(configuration)
    async with AsyncExitStack() as stack:
        export = _exporting(stack, configuration)
        channel = await stack.enter_async_context(_remote_channel(arguments))
        bridge = await _bridge(stack, configuration, channel, export, CollectorRegistry())
        stop = await stack.enter_async_context(_signals(_nothing_to_reload))
        memory.settle()
        print(f"REST    {bridge.url}/v1   (core: {arguments.core})", flush=True)
        await stop.wait()


class Gateway:
    """A core and a bridge that run in this process.

    Attributes:
        core: The core.
        bridge: The bridge.
    """

    def __init__(self, core: Core, bridge: "RunningBridge") -> None:
        self.core = core
        self.bridge = bridge

    def greeting(self) -> str:
        """Returns what a user needs to know to use the gateway."""
        return greeting(self.bridge.url, self.core.grpc_url, self.core.model_names(), self.core.new_token)


def greeting(url: str, grpc_url: str, names: Sequence[str], new_token: str | None) -> str:
    """Returns what a user needs to know to use a gateway.

    Args:
        url: Where its bridge listens, without `/v1`.
        grpc_url: Where its core listens.
        names: Its agents and models.
        new_token: The token that was made for this run, if one was.
    """
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    model = names[0] if names else "MODEL"
    token = new_token or "$TWINSPAN_TOKEN"
    body = f'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Say hello."}}]}}'
    return "\n".join(
        (
            f"REST    {url}/v1",
            f"gRPC    {grpc_url}",
            f"models  {shown or 'none yet'}",
            f"{_token_line(new_token)}",
            f"curl -N {url}/v1/chat/completions -H 'Authorization: Bearer {token}' -d '{body}'",
            "",
        )
    )


class RunningBridge:
    """A bridge that listens.

    Attributes:
        url: Where, without `/v1`.
        http: What it has counted.
    """

    def __init__(self, server: BridgeServer, url: str, http: HttpMetrics) -> None:
        self.server = server
        self.url = url
        self.http = http


@dataclass(frozen=True, slots=True)
class Together:
    """What a gateway is told that serves together with others.

    Attributes:
        membership: What its core is told.
        exposition: Shows the metrics of all.
        sockets: What its bridge listens on.
    """

    membership: Membership
    exposition: Exposition
    sockets: Sequence[socket.socket]


@asynccontextmanager
async def gateway(
    configuration: Configuration, *, processors: Sequence[Any] = (), together: Together | None = None
) -> AsyncIterator[Gateway]:
    """Runs core and bridge in this process for as long as the context lasts.

    Args:
        configuration: What holds.
        processors: Further processors of spans.
        together: What it is told if it serves together with others; None if it serves by itself.

    Raises:
        Problem: An address cannot be bound, or the embedded model cannot be started.
    """
    core_app.configure_logging(configuration, warnings=together is None)
    async with AsyncExitStack() as stack:
        export = _exporting(stack, configuration, processors, instance=str(uuid.uuid4()) if together else "")
        registry = CollectorRegistry()
        core = await _core(stack, configuration, export, registry, together.membership if together else None)
        bridge = await _bridge(stack, configuration, core.channel, export, registry, together)
        try:
            yield Gateway(core, bridge)
        finally:
            await asyncio.gather(bridge.server.stop(), core.drain())


def _exporting(
    stack: AsyncExitStack, configuration: Configuration, processors: Sequence[Any] = (), *, instance: str = ""
) -> Export:
    try:
        export = core_app.start_export(configuration, processors=processors, instance=instance)
    except ValueError as error:
        raise Problem(str(error), 2) from error
    stack.push_async_callback(export.stop)
    return export


async def _core(
    stack: AsyncExitStack,
    configuration: Configuration,
    export: Export,
    registry: CollectorRegistry,
    membership: Membership | None = None,
) -> Core:
    with explained():
        core = Core(configuration, export, registry, membership)
    stack.push_async_callback(core.stop)
    try:
        with explained():
            await core.start()
        core.serve_batches(bridge_app.lines(core.channel, core_app.VERSION))
    except core_app.StartError as error:
        raise Problem(str(error)) from error
    return core


async def _bridge(
    stack: AsyncExitStack,
    configuration: Configuration,
    channel: grpc.aio.Channel,
    export: Export,
    registry: CollectorRegistry,
    together: Together | None = None,
) -> RunningBridge:
    listen = core_app.listen_settings(configuration)
    settings = BridgeSettings(
        ServerSettings(
            host=listen.host,
            port=listen.port,
            max_body_bytes=listen.max_body_bytes,
            drain_seconds=listen.drain_seconds,
            cors_origins=listen.cors_origins,
            tls=_tls(listen.tls_cert, listen.tls_key, listen.tls_client_ca),
            sockets=together.sockets if together else (),
        ),
        version=core_app.VERSION,
        stream_default=listen.stream_default,
        keepalive_seconds=listen.keepalive_seconds,
    )
    http = HttpMetrics(registry)
    telemetry = HttpTelemetry(export.tracer_provider, http)
    server = bridge_app.build(channel, settings, telemetry, together.exposition if together else None)
    stack.push_async_callback(server.stop)
    try:
        port = await server.start()
    except OSError as error:
        address = f"{listen.host or '*'}:{listen.port}"
        raise Problem(
            f"Cannot listen on {address}: {error.strerror or error}. Stop what uses it, or set server.listen_addr or PORT."
        ) from error
    scheme = "https" if listen.tls_cert else "http"
    host = listen.host or "127.0.0.1"
    return RunningBridge(server, f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", http)


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> ssl.SSLContext | None:
    if cert is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # what TLS itself does not like among it
        raise Problem(f"The files of server.tls cannot be used: {error}.", 2) from error
    return context


@asynccontextmanager
async def _remote_channel(arguments: argparse.Namespace) -> AsyncIterator[grpc.aio.Channel]:
    target = arguments.core
    if arguments.core_ca or arguments.core_cert:
        credentials = grpc.ssl_channel_credentials(_pem(arguments.core_ca), _pem(arguments.core_key), _pem(arguments.core_cert))
        channel = grpc.aio.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
    async with channel:
        yield channel


def _pem(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Problem(f"{path} cannot be read: {error.strerror}.", 2) from error


def _token_line(new_token: str | None) -> str:
    return f"token   {new_token}   (made for this run; put client_token into a secrets file to keep one)\n" if new_token else ""


def _serve_metrics(stack: AsyncExitStack, configuration: Configuration, registry: CollectorRegistry) -> None:
    """Serves /metrics of a core that has no bridge beside it, if the configuration says where; in a thread of its own."""
    address = core_app.metrics_address(configuration)
    if address is None:
        return
    host, port = address
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise Problem(f"Cannot listen on {host}:{port}: {error.strerror or error}. Change server.metrics_addr.") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    stack.callback(stop)
    print(f"metrics http://{host}:{server.server_port}/metrics", flush=True)


@asynccontextmanager
async def _signals(reload: Callable[[], Coroutine[Any, Any, object]]) -> AsyncIterator[asyncio.Event]:
    """Gives an event that SIGINT and SIGTERM set; a second one of them ends the process where it is. SIGHUP reloads."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    reloads: set[asyncio.Task[object]] = set()

    def on_hangup() -> None:
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    def on_stop() -> None:
        stop.set()
        print("Stopping: requests under way may finish. Press Ctrl-C again to stop at once.", file=sys.stderr, flush=True)
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, os._exit, 128 + number)

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_stop)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        for task in reloads:
            task.cancel()
        await asyncio.gather(*reloads, return_exceptions=True)


async def _nothing_to_reload() -> None:
    _log.warning("The bridge has nothing to reload: restart it to change how it listens.")
