"""Wires the core from a configuration, and owns its start and its stop.

Everything that the core is made of is made here and handed to what needs it; nothing below looks for anything by itself. The
command line stands above, and finds here all that it may use of the core.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence

from opentelemetry.sdk.trace import SpanProcessor
from prometheus_client import CollectorRegistry

from gateway import listening
from gateway.access.delegation import Delegation
from gateway.access.keys import ConfiguredKeys, generate_token
from gateway.backends.choice import Backends
from gateway.backends.ledger import Ledger
from gateway.batches.desk import BatchDesk
from gateway.batches.lines import Lines
from gateway.batches.shift import Shift
from gateway.batches.store import BatchStore
from gateway.batches.worker import BatchWorker
from gateway.compilation import compile_catalogue, compile_keys, needs_local_model
from gateway.config.loading import ConfigError
from gateway.config.places import state_directory
from gateway.config.schema import Config, ServerConfig, json_schema
from gateway.config.snapshot import Snapshot
from gateway.config.snapshot import SnapshotHolder as Configuration
from gateway.discovery.discovery import Discovery
from gateway.discovery.knowledge import Knowledge
from gateway.discovery.refresher import Refresher
from gateway.discovery.registry import ModelRegistry
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.explanation import Explainer
from gateway.files.store import FileStore
from gateway.forwarding.forwarder import Forwarder
from gateway.governance import Governance
from gateway.inprocess import InProcessChannel
from gateway.keystore.desk import KeyDesk
from gateway.keystore.live import KEY_STORE, LiveKeys
from gateway.keystore.opening import make_driver
from gateway.listening import LOOPBACK, Listen
from gateway.local.engine import EngineError, LocalEndpoint
from gateway.local.starting import LocalModels
from gateway.profiling.profiler import Profiler
from gateway.providers.raw_sender import RawSender
from gateway.providers.sender import Sender
from gateway.responses.desk import ResponseDesk
from gateway.responses.kept import KeptResponses
from gateway.routing.catalogue import Catalogue
from gateway.rpc.edge import Edge
from gateway.rpc.registry import HandlerRegistry
from gateway.server import GrpcServer, ServerSettings, ServerStartError, TlsFiles
from gateway.services import registration
from gateway.services.admin import AdminService
from gateway.services.audio import AudioService
from gateway.services.batches import BatchesService
from gateway.services.chat import ChatService
from gateway.services.completions import CompletionsService
from gateway.services.embeddings import EmbeddingsService
from gateway.services.files import FilesService
from gateway.services.images import ImagesService
from gateway.services.keys import KeysService
from gateway.services.models import ModelsService
from gateway.services.moderations import ModerationsService
from gateway.services.proxy import ProxyService
from gateway.services.rerank import RerankService
from gateway.services.responses import ResponsesService
from gateway.siblings import Gathered, Membership, Reloading, Siblings, Standing
from gateway.state.embedded import EmbeddedStore, EmbeddedStoreError
from gateway.state.watch import STATE_STORE
from gateway.telemetry import logs, metrics, process, setup, totals
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.report import report
from gateway.telemetry.runtime import watch_event_loop
from gateway.telemetry.setup import Export
from gateway.telemetry.tracing import Tracing
from gateway.validation import USER_AGENT, VERSION, probe_providers, validate

__all__ = [
    "VERSION",
    "ConfigError",
    "Configuration",
    "Core",
    "EmbeddedStore",
    "EmbeddedStoreError",
    "EngineError",
    "Export",
    "Gathered",
    "Listen",
    "LocalEndpoint",
    "LocalModels",
    "Membership",
    "Reloading",
    "Siblings",
    "Standing",
    "StartError",
    "configure_logging",
    "demo_configuration",
    "generate_token",
    "grpc_address",
    "json_schema",
    "lay_down",
    "listen_settings",
    "load_configuration",
    "made_token",
    "metrics_address",
    "needs_local_model",
    "probe_providers",
    "show_all",
    "start_export",
    "validate",
]

_log = logging.getLogger(__name__)

_SHORTEST_CONNECTION_SECONDS = 1.0


class StartError(Exception):
    """The core cannot start; the message says what to do."""


def load_configuration(path: str | None) -> Configuration:
    """Returns the configuration at `path`, or where it is looked for without one.

    Raises:
        ConfigError: It has mistakes; the message names all of them.
    """
    return Configuration.of_files(path, os.environ)


def demo_configuration() -> Configuration:
    """Returns what the demo runs on: the embedded model, on free ports of this machine."""
    anywhere = f"{LOOPBACK}:0"
    return Configuration.of(Config(server=ServerConfig(listen_addr=anywhere, grpc_addr=anywhere, log_level="warning")))


def made_token(configuration: Configuration) -> str | None:
    """Returns a new token for the administrator; None if the configuration has keys."""
    config = configuration.current.config
    return None if config.client_token or config.api_keys else generate_token()


def lay_down(reports: Sequence[bytes]) -> bytes:
    """Returns one report of processes that have ended: what they had counted, and nothing of how they stood."""
    return totals.laid_down(reports)


def show_all(registry: CollectorRegistry, gathered: Gathered) -> None:
    """Adds the metrics of all processes that serve to a registry, as sums."""
    metrics.register_all(registry, gathered, VERSION)


def configure_logging(configuration: Configuration, *, warnings: bool = True) -> None:
    """Sends the log where and as the configuration says, and writes its warnings, unless another process does."""
    server = configuration.current.config.server
    logs.configure_logging(server.log_level, server.log_format)
    for warning in configuration.current.warnings if warnings else ():
        _log.warning("%s", warning)


def start_export(configuration: Configuration, *, processors: Sequence[SpanProcessor] = (), instance: str = "") -> Export:
    """Begins to export traces, as the configuration and the environment say.

    Args:
        configuration: What holds.
        processors: Further processors of spans.
        instance: What tells this process from others that serve with it; empty if there are none.

    Raises:
        ValueError: A variable of the environment has a value that is not supported.
    """
    telemetry = configuration.current.config.telemetry
    return setup.start_export(
        version=VERSION, instance=instance, traces=telemetry.traces, metrics=telemetry.metrics, processors=processors
    )


class Core:
    """The core, running in this process.

    Attributes:
        channel: Leads to the core's services without a network.
        new_token: The administrator's token, if it was made for this run; None if one is configured.
    """

    def __init__(
        self, configuration: Configuration, export: Export, registry: CollectorRegistry, membership: Membership | None = None
    ) -> None:
        """Wires the core; nothing is started yet.

        Args:
            configuration: What holds.
            export: Where spans and metrics go.
            registry: Where the core's metrics are shown.
            membership: What it is told if it serves together with others; None if it serves by itself.

        Raises:
            ConfigError: What it asks for is not installed.
        """
        snapshot = configuration.current
        config = snapshot.config
        self._configuration = configuration
        self._export = export
        self._membership = membership
        group = membership.group if membership else ""
        self._local_models = LocalModels()
        self._local = membership.local if membership else None
        self.new_token = membership.token if membership else made_token(configuration)
        self._catalogue = Catalogue([], [])
        self._reloading = asyncio.Lock()
        self._discovering = asyncio.Lock()
        self._recorder = Recorder(usage_histograms=export.wants_usage_histograms)
        self._collector = metrics.register(registry, self._recorder, VERSION)
        self._sender = Sender()
        self._raw_sender = RawSender()
        self._discovery = Discovery(self._sender, self._recorder)
        self._knowledge = Knowledge(ModelRegistry(), self._discovery.found)
        self._refresher = Refresher(self.discover)
        self._files = FileStore(
            config.files.dir or state_directory(os.environ) / "files",
            lambda: self._configuration.current.config.server.max_upload_bytes,
            group=group,
        )
        self._governance = governance = Governance(
            lambda: self._configuration.current.config,
            self._recorder,
            self._sender,
            lambda answers: self._server.tell(STATE_STORE, answers),
            state_url=membership.state_url if membership else None,
            budgets=self._files.root / "budgets",
            accounts=state_directory(os.environ) / "accounts.json",
        )
        driver = make_driver(config.keys.url, state_directory(os.environ))
        self._keys = LiveKeys(driver, self._compiled_keys(snapshot), self._recorder, lambda on: self._server.tell(KEY_STORE, on))
        self._delegation = Delegation()
        self._batches = BatchStore(config.batches.dir or self._files.root / "batches", group=group)
        self._shift: Shift | None = None
        self._desk = BatchDesk(self._batches, self._files)
        self._kept = Ledger(self._files.root / "providers", group)
        self._watcher: asyncio.Task[None] | None = None
        profiler = Profiler(lambda: self._configuration.current.config.debug.pprof_enabled)
        explainer = Explainer(lambda: self._catalogue, governance.planner, governance.limiter, time.monotonic)
        siblings = membership.siblings if membership else None
        reload = siblings.reload if siblings else self.reload
        self._admin = AdminService(self._recorder, VERSION, profiler, explainer, reload, siblings)
        self._registry = self._register_services()
        self.channel = InProcessChannel(self._registry)
        self._server = GrpcServer(self._registry, self._server_settings(snapshot))
        self._port = 0

    @property
    def grpc_url(self) -> str:
        """Where the core listens, as `host:port`."""
        host = listening.of_core(self._configuration.current).rpartition(":")[0]
        return f"{host or LOOPBACK}:{self._port}"

    def model_names(self) -> list[str]:
        """Returns the names of agents and models that are there, agents first: not of those that the registry alone knows."""
        return [listing.id for listing in self._catalogue.listings() if listing.source != "registry"]

    async def start(self) -> None:
        """Starts the embedded model if it is to run, finds out the providers' models if they are to be asked, and listens.

        Providers are waited for, 10 seconds at most, so that the first request finds every model.

        Raises:
            StartError: The embedded model or the server cannot start.
        """
        config = self._configuration.current.config
        await self._keys.start()
        await self._sender.start()
        await self._raw_sender.start()
        if self._membership is None and needs_local_model(config):
            try:
                self._local = await self._local_models.start(config.local_engine.max_sessions)
            except EngineError as error:
                raise StartError(str(error)) from error
        self._catalogue = await self._compiled_catalogue(self._configuration.current)
        await self._governance.start(self._catalogue)
        await self.discover()
        await self._keep_discovering()
        if self._files.exists:
            await self._open_files()
        try:
            self._port = await self._server.start()
        except ServerStartError as error:
            raise StartError(str(error)) from error
        self._collector.watch(asyncio.get_running_loop())
        self._watcher = asyncio.create_task(watch_event_loop(self._recorder))
        self._export.export_metrics(self._recorder)

    def serve_batches(self, lines: Lines) -> None:
        """Begins to run batches, and goes on with those that an earlier run has not ended.

        Args:
            lines: Answers their lines, over `channel`.
        """
        config = self._configuration.current.config
        self._desk.worker = worker = BatchWorker(
            self._batches,
            self._files,
            lines,
            self._delegation,
            counts=self._recorder.batches,
            concurrency=config.batches.max_concurrency,
            most_line_bytes=lambda: self._configuration.current.config.server.max_body_bytes,
        )
        if self._membership is not None:
            self._shift = Shift(self._batches, worker)
            self._shift.start()
        elif self._batches.exists:
            worker.resume()

    async def report(self, *, samples: bool = True) -> bytes:
        """Returns what was counted, for a process that adds it to what others have counted; with the last `samples`, or without."""
        facts = await asyncio.to_thread(process.facts, len(asyncio.all_tasks()))
        return await asyncio.to_thread(report, self._recorder, facts, samples=samples)

    async def hand_over(self) -> None:
        """Lets another process take this one's place: it runs no batches any more, and returns once gRPC's clients have left."""
        stopping = self._shift.stop(self._configuration.current.config.server.drain_seconds) if self._shift else asyncio.sleep(0)
        await asyncio.gather(self._server.hand_over(), stopping)

    async def drain(self) -> None:
        """Stops listening and lets the calls under way end. Those that come through `channel` are answered still."""
        self._admin.stop()
        running = self._shift or self._desk.worker
        grace_seconds = self._configuration.current.config.server.drain_seconds
        await asyncio.gather(self._server.stop(), running.stop(grace_seconds) if running is not None else asyncio.sleep(0))

    async def stop(self) -> None:
        """Drains, and frees everything. It may be called without a start."""
        await self.drain()
        await self.channel.close()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._refresher.stop()
        await self._exchange.close()
        await self._keys.stop()
        await self._governance.close()
        await self._batches.close()
        await self._kept.close()
        await self._files.close()
        await self._sender.close()
        await self._raw_sender.close()
        await self._local_models.stop()

    async def reload(self) -> Reloading:
        """Reads the configuration again. It is compiled whole, and then swapped; with a mistake in it, the old one goes on.

        Requests under way keep the catalogue that they began with. What the core listens on does not change. Then the providers are
        asked for their models, if they are to be; meanwhile what was found before holds.
        """
        async with self._reloading:  # one after the other, so that what was read last is what holds
            done = await self._reload()
            if done.mistakes:
                return done
            await self._keep_discovering()
        await self.discover()
        return done

    async def discover(self) -> None:
        """Asks all providers for their models, if they are to be asked, and makes the catalogue anew; takes 10 seconds at most."""
        async with self._discovering:
            if not self._configuration.current.config.discovery.enabled:
                return
            await self._discovery.refresh(provider for provider in self._catalogue.providers.values() if not provider.free)
        async with self._reloading:
            try:
                self._adopt(await self._compiled_catalogue(self._configuration.current))
            except ConfigError as error:
                _log.error("What was found of the providers' models is not used. %s", error)

    async def _keep_discovering(self) -> None:
        discovery = self._configuration.current.config.discovery
        if discovery.enabled:
            await self._refresher.every(discovery.refresh_seconds)
        else:
            await self._refresher.stop()

    async def _compiled_catalogue(self, snapshot: Snapshot) -> Catalogue:
        """Returns the catalogue of a configuration. It may be large, and requests are served meanwhile: so it is made in a thread.

        Raises:
            ConfigError: The configuration cannot be served from.
        """
        return await asyncio.to_thread(compile_catalogue, snapshot, self._local, USER_AGENT, self._knowledge)

    def _adopt(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._governance.adopt(catalogue)

    async def _reload(self) -> Reloading:
        try:
            snapshot = await self._configuration.read()
            catalogue, keys = await self._compiled_catalogue(snapshot), self._compiled_keys(snapshot)
        except ConfigError as error:
            _log.error("The configuration was not reloaded, the old one goes on. %s", error)
            return Reloading(mistakes=str(error))
        for warning in snapshot.warnings:
            _log.warning("%s", warning)
        self._configuration.adopt(snapshot)
        self._keys.configure(keys)
        self._adopt(catalogue)
        _log.info("The configuration was reloaded.")
        return Reloading(sources=[str(source) for source in snapshot.sources], warnings=snapshot.warnings)

    async def _open_files(self) -> None:
        """Opens the files of an earlier run. Without them the gateway serves all else, and tells whoever asks for a file."""
        with contextlib.suppress(GatewayError):  # it is in the log
            await self._files.open()

    def _compiled_keys(self, snapshot: Snapshot) -> ConfiguredKeys:
        configured = snapshot.config.client_token
        return compile_keys(snapshot.config, configured.get_secret_value() if configured else self.new_token)

    def _register_services(self) -> HandlerRegistry:
        tracing = Tracing(self._export.tracer_provider)
        edge = Edge(registration.policy(), lambda: self._keys.ring, self._recorder, tracing, self._delegation)
        registry = HandlerRegistry([edge.wrap])
        governance = self._governance
        exchange = self._exchange = Exchange(lambda: self._catalogue, self._sender, self._recorder, tracing, governance)
        most_bytes = lambda: self._configuration.current.config.server.max_upload_bytes  # noqa: E731 (three services ask it)
        forwarder = Forwarder(lambda: self._catalogue, self._raw_sender, self._recorder, tracing, most_bytes, governance)
        backends = Backends(
            self._files,
            self._desk,
            self._kept,
            lambda: self._configuration.current.config,
            lambda: self._catalogue,
            self._raw_sender,
            self._recorder,
            tracing,
        )
        kept = KeptResponses(self._kept)
        registration.register(
            registry,
            self._admin,
            AudioService(exchange, most_bytes),
            BatchesService(backends.batches),
            ChatService(exchange),
            CompletionsService(exchange),
            EmbeddingsService(exchange),
            FilesService(backends.files),
            ImagesService(exchange, most_bytes),
            KeysService(KeyDesk(self._keys, self._recorder)),
            ModelsService(lambda: self._catalogue),
            ModerationsService(exchange),
            ProxyService(forwarder),
            RerankService(exchange),
            ResponsesService(exchange, kept, ResponseDesk(kept, backends.resources)),
        )
        return registry

    def _server_settings(self, snapshot: Snapshot) -> ServerSettings:
        server = snapshot.config.server
        tls = server.tls
        address = listening.of_core(snapshot)
        if self._membership is not None:
            address = f"{address.rpartition(':')[0]}:{self._membership.grpc_port}"
        return ServerSettings(
            address=address,
            tls=TlsFiles(tls.cert, tls.key, tls.client_ca) if tls else None,
            drain_seconds=server.drain_seconds,
            reuse_port=self._membership is not None,
            connection_seconds=None if self._membership is None else max(server.drain_seconds, _SHORTEST_CONNECTION_SECONDS),
        )


def listen_settings(configuration: Configuration) -> Listen:
    """Returns how a bridge is to listen. Without any configuration, that is on this machine alone."""
    return listening.of_bridge(configuration.current)


def grpc_address(configuration: Configuration) -> str:
    """Returns where a core is to listen, as `host:port`; without a host all interfaces."""
    return listening.of_core(configuration.current)


def metrics_address(configuration: Configuration) -> tuple[str, int] | None:
    """Returns where a core without a bridge is to serve its metrics, as host and port; None for nowhere."""
    return listening.of_metrics(configuration.current)
