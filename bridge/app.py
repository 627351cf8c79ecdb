"""Builds the bridge from a channel. Which of the two channels it is, nothing here can tell."""

from dataclasses import dataclass

import grpc
from grpc_health.v1.health_pb2_grpc import HealthStub
from twinspan.v1 import admin_pb2, embeddings_pb2, models_pb2, moderations_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub
from twinspan.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from twinspan.v1.models_pb2_grpc import ModelsServiceStub
from twinspan.v1.moderations_pb2_grpc import ModerationsServiceStub

from bridge import transcoding
from bridge.router import Router
from bridge.routes import models
from bridge.routes.chat import ChatRoutes
from bridge.routes.operations import OperationsRoutes
from bridge.server import BridgeServer, ServerSettings
from bridge.telemetry.http import HttpTelemetry


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
    router = Router()
    chat = ChatRoutes(channel, stream_default=settings.stream_default, keepalive_seconds=settings.keepalive_seconds)
    operations = OperationsRoutes(HealthStub(channel), telemetry.metrics, settings.version)
    router.add("POST", "/v1/chat/completions", chat.completions)
    router.add("GET", "/healthz", operations.healthz)
    router.add("GET", "/readyz", operations.readyz)
    router.add("GET", "/metrics", operations.metrics)
    for descriptor, stub, renderers in (
        (embeddings_pb2.DESCRIPTOR.services_by_name["EmbeddingsService"], EmbeddingsServiceStub(channel), {}),
        (moderations_pb2.DESCRIPTOR.services_by_name["ModerationsService"], ModerationsServiceStub(channel), {}),
        (models_pb2.DESCRIPTOR.services_by_name["ModelsService"], ModelsServiceStub(channel), models.RENDERERS),
        (admin_pb2.DESCRIPTOR.services_by_name["AdminService"], AdminServiceStub(channel), {}),
    ):
        for method, template, handler in transcoding.routes(descriptor, stub, renderers):
            router.add(method, template, handler)
    return BridgeServer(router, settings.server, telemetry)
