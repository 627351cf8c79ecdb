"""Whether a configuration can be served from: what can be seen without serving, and what its providers say.

Above is `gateway.app`.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Final

from gateway import probe
from gateway.compilation import compile_catalogue, needs_local_model
from gateway.config.snapshot import SnapshotHolder
from gateway.discovery.knowledge import Knowledge
from gateway.discovery.registry import ModelRegistry
from gateway.keystore.opening import make_driver
from gateway.local.embedding_engine import EMBEDDING_MODELS
from gateway.local.engine import MODELS, LocalEndpoint
from gateway.probe import Finding
from gateway.routing.catalogue import Catalogue

VERSION: Final = version("twinspan")
"""The gateway's version."""

USER_AGENT: Final = f"twinspan/{VERSION}"
"""What providers are told who asks, unless the configuration says it."""


def validate(configuration: SnapshotHolder) -> None:
    """Makes sure that a configuration can be served from, beyond what can be seen while it is loaded.

    Raises:
        ConfigError: It cannot; the message names all mistakes.
    """
    make_driver(configuration.current.config.keys.url, Path())  # which opens nothing
    _compiled_for_validation(configuration)


async def probe_providers(configuration: SnapshotHolder) -> list[Finding]:
    """Asks every provider for its models, the embedded one excepted, and returns what came of it.

    Raises:
        ConfigError: The configuration cannot be served from.
    """
    providers = _compiled_for_validation(configuration).providers.values()
    return await probe.probe(provider for provider in providers if not provider.free)


def _compiled_for_validation(configuration: SnapshotHolder) -> Catalogue:
    snapshot = configuration.current
    local = LocalEndpoint("http://127.0.0.1/v1", "", MODELS + EMBEDDING_MODELS) if needs_local_model(snapshot.config) else None
    return compile_catalogue(snapshot, local, USER_AGENT, Knowledge(ModelRegistry()))
