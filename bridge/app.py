"""Builds the bridge from a channel. Which of the two channels it is, nothing here can tell."""

from dataclasses import dataclass
from http import HTTPStatus

import grpc
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client import CollectorRegistry
from twinspan.v1 import (
    admin_pb2,
    audio_pb2,
    batches_pb2,
    completions_pb2,
    embeddings_pb2,
    files_pb2,
    images_pb2,
    keys_pb2,
    models_pb2,
    moderations_pb2,
    rerank_pb2,
    responses_pb2,
)
from twinspan.v1.admin_pb2_grpc import AdminServiceStub
from twinspan.v1.audio_pb2_grpc import AudioServiceStub
from twinspan.v1.batches_pb2_grpc import BatchesServiceStub
from twinspan.v1.completions_pb2_grpc import CompletionsServiceStub
from twinspan.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from twinspan.v1.files_pb2_grpc import FilesServiceStub
from twinspan.v1.images_pb2_grpc import ImagesServiceStub
from twinspan.v1.keys_pb2_grpc import KeysServiceStub
from twinspan.v1.models_pb2_grpc import ModelsServiceStub
from twinspan.v1.moderations_pb2_grpc import ModerationsServiceStub
from twinspan.v1.rerank_pb2_grpc import RerankServiceStub
from twinspan.v1.responses_pb2_grpc import ResponsesServiceStub

from bridge import transcoding
from bridge.lines import Lines
from bridge.router import Endpoint, Router
from bridge.routes import batches, files, models
from bridge.routes.audio import AudioRoutes
from bridge.routes.batches import BatchesRoutes
from bridge.routes.chat import ChatRoutes
from bridge.routes.documents import DocumentRoutes
from bridge.routes.explain import ExplainRoute
from bridge.routes.files import FilesRoutes
from bridge.routes.forms import FormRoute
from bridge.routes.json_streams import JsonStreamRoute
from bridge.routes.operations import OperationsRoutes
from bridge.routes.profiles import ProfileRoutes
from bridge.routes.proxy import ProxyRoutes
from bridge.routes.responses import ResponsesRoutes
from bridge.server import BridgeServer, ServerSettings
from bridge.telemetry.http import HttpTelemetry
from bridge.telemetry.metrics import Exposition, HttpMetrics


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


def build(
    channel: grpc.aio.Channel, settings: BridgeSettings, telemetry: HttpTelemetry, metrics: Exposition | None = None
) -> BridgeServer:
    """Returns a bridge to the core at the other end of `channel`, ready to be started.

    Args:
        channel: Leads to the core.
        settings: How it listens.
        telemetry: What it tells about itself.
        metrics: What `/metrics` shows, if more than this process has counted.
    """
    return BridgeServer(routes(channel, settings, metrics or telemetry.metrics), settings.server, telemetry)


def lines(channel: grpc.aio.Channel, version: str) -> Lines:
    """Returns what answers the lines of batches, over the channel on which the core reaches itself."""
    return Lines(routes(channel, BridgeSettings(ServerSettings(None, 0), version), HttpMetrics(CollectorRegistry())))


def routes(channel: grpc.aio.Channel, settings: BridgeSettings, metrics: Exposition) -> Router:
    """Returns the bridge's routes."""
    router = Router()
    chat = ChatRoutes(channel, stream_default=settings.stream_default, keepalive_seconds=settings.keepalive_seconds)
    operations = OperationsRoutes(HealthStub(channel), metrics, settings.version)
    documents = DocumentRoutes()
    stored = FilesRoutes(channel)
    started = BatchesRoutes(channel)
    proxy = ProxyRoutes(channel)
    audio = AudioRoutes(channel)
    keepalive = settings.keepalive_seconds
    completing = completions_pb2.DESCRIPTOR.services_by_name["CompletionsService"]
    completions = JsonStreamRoute(completing, CompletionsServiceStub(channel), "Complete", "Stream", keepalive, has_done=True)
    imaging = images_pb2.DESCRIPTOR.services_by_name["ImagesService"]
    generations = JsonStreamRoute(imaging, ImagesServiceStub(channel), "Generate", "GenerateStream", keepalive, has_done=False)
    responding = responses_pb2.DESCRIPTOR.services_by_name["ResponsesService"]
    responses = JsonStreamRoute(responding, ResponsesServiceStub(channel), "Create", "Stream", keepalive, has_done=False)
    profiles = ProfileRoutes(channel)
    explain = ExplainRoute(channel)
    made = ResponsesRoutes(channel, keepalive)
    kept = files_pb2.DESCRIPTOR.services_by_name["FilesService"].methods_by_name
    unavailable = (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
    for endpoint in (
        Endpoint("POST", "/v1/chat/completions", chat.completions, chat.rpcs),
        Endpoint("POST", "/v1/audio/speech", audio.speech, (audio.speak,), gives="*/*"),
        Endpoint("POST", "/v1/completions", completions.handle, completions.rpcs),
        Endpoint("POST", "/v1/responses", responses.handle, responses.rpcs),
        Endpoint("GET", "/v1/responses/{id}", made.get, (made.methods["Get"], made.methods["GetStream"])),
        Endpoint("DELETE", "/v1/responses/{id}", made.delete, (made.methods["Delete"],)),
        Endpoint("POST", "/v1/responses/{id}/cancel", made.cancel, (made.methods["Cancel"],)),
        Endpoint("GET", "/v1/responses/{id}/input_items", made.input_items, (made.methods["ListInputItems"],)),
        Endpoint("POST", "/v1/images/generations", generations.handle, generations.rpcs),
        Endpoint("POST", "/v1/batches", started.create, (started.rpc,)),
        Endpoint("POST", "/v1/files", stored.upload, (kept["Upload"],), takes="multipart/form-data"),
        Endpoint("GET", "/v1/files/{id}/content", stored.content, (kept["Download"],), gives="application/octet-stream"),
        Endpoint("*", "/proxy/{provider}/{path=**}", proxy.any, described=False),
        Endpoint("GET", "/v1/realtime", proxy.realtime, described=False),
        Endpoint("POST", "/v1/explain", explain.handle, (explain.method,)),
        Endpoint("GET", "/debug/pprof/", profiles.index, (profiles.make,), gives="text/html"),
        Endpoint("GET", "/debug/pprof/{kind}", profiles.profile, (profiles.make,), gives="*/*"),
        Endpoint("GET", "/healthz", operations.healthz, summary="Tells that the process is alive."),
        Endpoint("GET", "/readyz", operations.readyz, summary="Tells whether requests can be served.", statuses=unavailable),
        Endpoint("GET", "/metrics", operations.metrics, summary="Gives the metrics, for Prometheus."),
        Endpoint("GET", "/openapi.json", documents.openapi, summary="Describes this interface."),
        Endpoint("GET", "/docs", documents.page, summary="Shows this description to people."),
    ):
        router.add(endpoint)
    sounding = audio_pb2.DESCRIPTOR.services_by_name["AudioService"]
    for service, taker, name, path in (
        (sounding, AudioServiceStub(channel), "Transcribe", "/v1/audio/transcriptions"),
        (sounding, AudioServiceStub(channel), "Translate", "/v1/audio/translations"),
        (imaging, ImagesServiceStub(channel), "Edit", "/v1/images/edits"),
        (imaging, ImagesServiceStub(channel), "Vary", "/v1/images/variations"),
    ):
        form = FormRoute(service.methods_by_name[name], taker)
        router.add(Endpoint("POST", path, form.handle, form.rpcs, takes="multipart/form-data", gives="*/*"))
    for descriptor, stub, renderers in (
        (embeddings_pb2.DESCRIPTOR.services_by_name["EmbeddingsService"], EmbeddingsServiceStub(channel), {}),
        (moderations_pb2.DESCRIPTOR.services_by_name["ModerationsService"], ModerationsServiceStub(channel), {}),
        (rerank_pb2.DESCRIPTOR.services_by_name["RerankService"], RerankServiceStub(channel), {}),
        (batches_pb2.DESCRIPTOR.services_by_name["BatchesService"], BatchesServiceStub(channel), batches.RENDERERS),
        (files_pb2.DESCRIPTOR.services_by_name["FilesService"], FilesServiceStub(channel), files.RENDERERS),
        (admin_pb2.DESCRIPTOR.services_by_name["AdminService"], AdminServiceStub(channel), {}),
        (keys_pb2.DESCRIPTOR.services_by_name["KeysService"], KeysServiceStub(channel), {}),
    ):
        for endpoint in transcoding.routes(descriptor, stub, renderers):
            router.add(endpoint)
    listing = models_pb2.DESCRIPTOR.services_by_name["ModelsService"]
    for endpoint in transcoding.routes(listing, ModelsServiceStub(channel), models.RENDERERS, models.READERS):
        router.add(endpoint)
    return router
