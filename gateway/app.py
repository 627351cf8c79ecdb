"""Wires the core from a configuration, and owns its start and its stop.

Everything that the core is made of is made here and handed to what needs it; nothing below looks for anything by itself. The command
line stands above, and finds here all that it may use of the core.
"""

import asyncio
import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, cast

from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry
from twinspan.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from twinspan.v1.chat_pb2_grpc import add_ChatServiceServicer_to_server
from twinspan.v1.models_pb2_grpc import add_ModelsServiceServicer_to_server

from gateway.access.keys import KeyRing
from gateway.access.policy import Policy
from gateway.compile import compile_catalogue, compile_keys
from gateway.config.snapshot import Snapshot, SnapshotHolder
from gateway.exchange import Exchange
from gateway.inprocess import InProcessChannel
from gateway.local.engine import LocalEngine
from gateway.providers.sender import Sender
from gateway.routing.catalogue import Catalogue, RoutingState
from gateway.rpc.edge import Edge
from gateway.rpc.registry import HandlerRegistry
from gateway.server import GrpcServer, GrpcServerSettings
from gateway.services.admin import AdminService
from gateway.services.chat import ChatService
from gateway.services.models import ModelsService
from gateway.telemetry.metrics import register
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.runtime import watch_event_loop
from gateway.telemetry.tracing import Tracing

_log = logging.getLogger(__name__)
VERSION = version("twinspan")
