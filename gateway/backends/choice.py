"""Chooses where a caller's files and batches are: with the gateway, or with the provider that the configuration names.

Above are the services of files and batches. Below are the gateway's own stores, and those of providers.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.backends.batches import ProviderBatches, Rights
from gateway.backends.files import ProviderFiles
from gateway.backends.ledger import Ledger
from gateway.backends.resources import ResourceCaller, Resources
from gateway.batches.batch import Batch
from gateway.batches.desk import BatchDesk, Order
from gateway.config.schema import Config
from gateway.errors import GatewayError
from gateway.files.description import Description
from gateway.files.store import Entry, FileStore
from gateway.files.upload import Upload
from gateway.providers.raw_sender import RawSender
from gateway.routing.catalogue import Catalogue
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import Tracing

OWN = "local"
"""What the configuration calls the gateway's own stores."""


class Files(Protocol):
    """Where files are; the methods are those of `gateway.files.store.FileStore`."""

    @property
    def provider(self) -> bool:
        """Whether a provider keeps them."""

    async def begin(self) -> Upload:
        """Begins to take a file."""

    async def commit(self, upload: Upload, owner: str, description: Description) -> Entry:
        """Makes a file of an upload."""

    async def list(self, owner: str | None, *, purpose: str, limit: int, after: str, ascending: bool) -> tuple[list[Entry], bool]:
        """Returns files in the order in which they were made, and whether there are more."""

    async def get(self, id: str, owner: str | None) -> Entry:  # noqa: A002 (it is one)
        """Returns what is known of a file."""

    async def delete(self, id: str, owner: str | None) -> None:  # noqa: A002 (it is one)
        """Deletes a file."""

    def read(self, entry: Entry, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """Gives what a file holds, piece by piece."""


class Batches(Protocol):
    """Where batches are; the methods are those of `gateway.batches.desk.BatchDesk`."""

    async def create(self, order: Order, owner: str, sees_only: str | None) -> Batch:
        """Makes a batch, and has it run."""

    async def get(self, id_: str, sees_only: str | None) -> Batch:
        """Returns a batch as it stands."""

    async def list(self, sees_only: str | None, *, limit: int, after: str) -> tuple[list[Batch], bool]:
        """Returns batches, the newest first, and whether there are more."""

    async def cancel(self, id_: str, sees_only: str | None) -> Batch:
        """Has a batch stopped."""


class Caller(ResourceCaller, Rights, Protocol):
    """Who asks."""


class Backends:
    """Chooses, for each call anew, since the configuration may change."""

    def __init__(
        self,
        files: FileStore,
        desk: BatchDesk,
        entries: Ledger,
        config: Callable[[], Config],
        catalogue: Callable[[], Catalogue],
        sender: RawSender,
        recorder: Recorder,
        tracing: Tracing,
    ) -> None:
        """Makes what chooses.

        Args:
            files: The gateway's own files.
            desk: The gateway's own batches.
            entries: Who made what at providers.
            config: Returns the configuration that holds now.
            catalogue: Returns its catalogue.
            sender: Sends to providers.
            recorder: Counts.
            tracing: Makes spans.
        """
        self._own_files = files
        self._own_batches = desk
        self._entries = entries
        self._config = config
        self._catalogue = catalogue
        self._sender = sender
        self._recorder = recorder
        self._tracing = tracing
        self._uploads = asyncio.Semaphore(config().files.max_concurrency)

    def files(self, caller: Caller) -> Files:
        """Returns where a caller's files are.

        Raises:
            GatewayError: NOT_CONFIGURED: the provider is configured no more.
        """
        name = self._config().files.backend
        return self._own_files if name == OWN else self._provider_files(self.resources(name, caller))

    def batches(self, caller: Caller) -> Batches:
        """Returns where a caller's batches are. What is raised is what `files` raises."""
        name = self._config().batches.backend
        if name == OWN:
            return self._own_batches
        resources = self.resources(name, caller)
        return ProviderBatches(resources, self._entries, self._provider_files(resources), caller)

    def _provider_files(self, resources: Resources) -> ProviderFiles:
        return ProviderFiles(resources, self._entries, self._uploads, lambda: self._config().server.max_upload_bytes)

    def resources(self, name: str, caller: ResourceCaller, account: str = "") -> Resources:
        """Returns what asks a provider on behalf of a caller.

        Args:
            name: The provider's name.
            caller: On whose behalf.
            account: Which of its accounts keeps what it is asked for; empty for the first, which keeps files and batches.

        Raises:
            GatewayError: NOT_CONFIGURED: the provider is configured no more.
        """
        provider = self._catalogue().providers.get(name)
        if provider is None:
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_CONFIGURED,
                f"The provider '{name}', which keeps what you ask for, is not configured. Whoever runs this gateway must add it.",
            )
        provider = next((variant for variant in provider.accounts if variant.account == account), provider)
        return Resources(provider, self._sender, self._recorder, self._tracing, caller)
