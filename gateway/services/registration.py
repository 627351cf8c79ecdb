"""Registers the core's services, each by what the generated stubs offer for it: the one table of what there is.

Above is `gateway.app`, which makes the services. Below are the registry, and the policy, which reads from the descriptors who may
call what.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from twinspan.v1 import (
    admin_pb2,
    audio_pb2,
    batches_pb2,
    chat_pb2,
    completions_pb2,
    embeddings_pb2,
    files_pb2,
    images_pb2,
    keys_pb2,
    models_pb2,
    moderations_pb2,
    proxy_pb2,
    rerank_pb2,
    responses_pb2,
)
from twinspan.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from twinspan.v1.audio_pb2_grpc import add_AudioServiceServicer_to_server
from twinspan.v1.batches_pb2_grpc import add_BatchesServiceServicer_to_server
from twinspan.v1.chat_pb2_grpc import add_ChatServiceServicer_to_server
from twinspan.v1.completions_pb2_grpc import add_CompletionsServiceServicer_to_server
from twinspan.v1.embeddings_pb2_grpc import add_EmbeddingsServiceServicer_to_server
from twinspan.v1.files_pb2_grpc import add_FilesServiceServicer_to_server
from twinspan.v1.images_pb2_grpc import add_ImagesServiceServicer_to_server
from twinspan.v1.keys_pb2_grpc import add_KeysServiceServicer_to_server
from twinspan.v1.models_pb2_grpc import add_ModelsServiceServicer_to_server
from twinspan.v1.moderations_pb2_grpc import add_ModerationsServiceServicer_to_server
from twinspan.v1.proxy_pb2_grpc import add_ProxyServiceServicer_to_server
from twinspan.v1.rerank_pb2_grpc import add_RerankServiceServicer_to_server
from twinspan.v1.responses_pb2_grpc import add_ResponsesServiceServicer_to_server

from gateway.access.policy import Policy
from gateway.rpc.registry import HandlerRegistry
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

_FILES: Final = (
    admin_pb2,
    audio_pb2,
    batches_pb2,
    chat_pb2,
    completions_pb2,
    embeddings_pb2,
    files_pb2,
    images_pb2,
    keys_pb2,
    models_pb2,
    moderations_pb2,
    proxy_pb2,
    rerank_pb2,
    responses_pb2,
)

_ADDERS: Final[Mapping[type, Callable[..., None]]] = {
    AdminService: add_AdminServiceServicer_to_server,
    AudioService: add_AudioServiceServicer_to_server,
    BatchesService: add_BatchesServiceServicer_to_server,
    ChatService: add_ChatServiceServicer_to_server,
    CompletionsService: add_CompletionsServiceServicer_to_server,
    EmbeddingsService: add_EmbeddingsServiceServicer_to_server,
    FilesService: add_FilesServiceServicer_to_server,
    ImagesService: add_ImagesServiceServicer_to_server,
    KeysService: add_KeysServiceServicer_to_server,
    ModelsService: add_ModelsServiceServicer_to_server,
    ModerationsService: add_ModerationsServiceServicer_to_server,
    ProxyService: add_ProxyServiceServicer_to_server,
    RerankService: add_RerankServiceServicer_to_server,
    ResponsesService: add_ResponsesServiceServicer_to_server,
}


def policy() -> Policy:
    """Returns who may call which method of the services that are registered here."""
    return Policy(service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values())


def register(registry: HandlerRegistry, *services: object) -> None:
    """Has a registry serve these services, one of each kind."""
    for service in services:
        # They take an `RpcCall` where the generated base classes say grpc's context, for which a registry is a server: see
        # docs/adr/0001-wrap-handlers-at-registration.md.
        _ADDERS[type(service)](cast("Any", service), cast("Any", registry))
