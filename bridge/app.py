"""Builds the bridge from a channel. Which of the two channels it is, nothing here can tell."""

from dataclasses import dataclass

import grpc
from grpc_health.v1.health_pb2_grpc import HealthStub
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import CollectorRegistry
from twinspan.v1 import admin_pb2, batches_pb2, files_pb2, models_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub
from twinspan.v1.batches_pb2_grpc import BatchesServiceStub
from twinspan.v1.files_pb2_grpc import FilesServiceStub
from twinspan.v1.models_pb2_grpc import ModelsServiceStub

from bridge import transcoding
from bridge.lines import Lines
from bridge.router import Router
from bridge.routes import batches, files, models
from bridge.routes.batches import BatchesRoutes
from bridge.routes.chat import ChatRoutes
from bridge.routes.files import FilesRoutes
from bridge.routes.operations import OperationsRoutes
from bridge.server import BridgeServer, ServerSettings
from bridge.telemetry.http import HttpTelemetry
from bridge.telemetry.metrics import HttpMetrics


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """What the bridge needs to know of the configuration.

    Attributes:
        server: How it listens.
        version: The gateway's version.
        stream_default: Whether to stream where neither the body nor `Accept` says.
        keepalive_seconds: After how much silence a stream gets a comment; 0 for never.
    """

    server: ServerSettings
    version: str
    stream_default: bool = True
    keepalive_seconds: float = 15.0


def build(channel: grpc.aio.Channel, settings: BridgeSettings, telemetry: HttpTelemetry) -> BridgeServer:
    """Returns a bridge to the core at the other end of `channel`, ready to be started."""
    return BridgeServer(_router(channel, settings, telemetry), settings.server, telemetry)


def lines(channel: grpc.aio.Channel, version: str) -> Lines:
    """Returns what answers the lines of batches, over the channel on which the core reaches itself."""
    unseen = HttpTelemetry(NoOpTracerProvider(), HttpMetrics(CollectorRegistry()))
    return Lines(_router(channel, BridgeSettings(ServerSettings(None, 0), version), unseen))


def _router(channel: grpc.aio.Channel, settings: BridgeSettings, telemetry: HttpTelemetry) -> Router:
    router = Router()
    chat = ChatRoutes(channel, stream_default=settings.stream_default, keepalive_seconds=settings.keepalive_seconds)
    operations = OperationsRoutes(HealthStub(channel), telemetry.metrics, settings.version)
    router.add("POST", "/v1/chat/completions", chat.completions)
    stored = FilesRoutes(channel)
    router.add("POST", "/v1/files", stored.upload)
    router.add("GET", "/v1/files/{id}/content", stored.content)
    router.add("POST", "/v1/batches", BatchesRoutes(channel).create)
    router.add("GET", "/healthz", operations.healthz)
    router.add("GET", "/readyz", operations.readyz)
    router.add("GET", "/metrics", operations.metrics)
    for descriptor, stub, renderers in (
        (models_pb2.DESCRIPTOR.services_by_name["ModelsService"], ModelsServiceStub(channel), models.RENDERERS),
        (batches_pb2.DESCRIPTOR.services_by_name["BatchesService"], BatchesServiceStub(channel), batches.RENDERERS),
        (files_pb2.DESCRIPTOR.services_by_name["FilesService"], FilesServiceStub(channel), files.RENDERERS),
        (admin_pb2.DESCRIPTOR.services_by_name["AdminService"], AdminServiceStub(channel), {}),
    ):
        for method, template, handler in transcoding.routes(descriptor, stub, renderers):
            router.add(method, template, handler)
    return router
