"""The desk: where callers make batches, look at them and cancel them.

Above it: the service. Below it: the store, and the worker that is told of what was asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.batches.batch import Batch, Status, window_seconds
from gateway.batches.store import BatchStore
from gateway.batches.worker import BatchWorker
from gateway.errors import GatewayError
from gateway.files.description import BATCH, lifetime_seconds
from gateway.files.store import FileStore

_MOST_NOTES, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512
_STOPPABLE = (Status.VALIDATING, Status.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants to have done.

    Attributes:
        input_file_id: The file with the lines.
        endpoint: The route of the lines.
        completion_window: How long it may take.
        metadata: What to note with it.
        output_seconds: After how many seconds its output files cease to be; None for never.
    """

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Mapping[str, str]
    output_seconds: int | None


class BatchDesk:
    """Takes orders for batches.

    Attributes:
        worker: Runs them; None until there is something that answers lines.
    """

    def __init__(self, store: BatchStore, files: FileStore) -> None:
        self.worker: BatchWorker | None = None
        self._store = store
        self._files = files

    async def create(self, order: Order, owner: str, sees_only: str | None) -> Batch:
        """Makes a batch, which is on disk when this returns, and begins to run it.

        Args:
            order: What is wanted.
            owner: The name of the key whose batch it will be.
            sees_only: Whose files the caller may read; None for everyone's.

        Raises:
            GatewayError: The order cannot be taken.
        """
        worker = self.worker
        if worker is None:
            raise GatewayError(ErrorKind.ERROR_KIND_NOT_CONFIGURED, "This gateway does not run batches.")
        seconds = window_seconds(order.completion_window)
        if order.endpoint not in worker.lines.urls:
            raise _invalid("endpoint", f"must be one of {', '.join(sorted(worker.lines.urls))}")
        _check_notes(order.metadata)
        if order.output_seconds is not None:
            lifetime_seconds(order.output_seconds, "output_expires_after")
        entry = await self._files.get(order.input_file_id, sees_only)
        if entry.purpose != BATCH:
            raise _invalid("input_file_id", f"must be a file of purpose '{BATCH}', and this one's is '{entry.purpose}'")
        id_, now = await self._store.new_id(), self._store.now()
        batch = Batch(
            id=id_,
            owner=owner,
            endpoint=order.endpoint,
            input_file_id=entry.id,
            completion_window=order.completion_window,
            metadata=orjson.dumps(dict(order.metadata)).decode(),
            output_seconds=order.output_seconds,
            created_at=now,
            expires_at=now + seconds,
        )
        await self._files.link(entry, self._store.input_path(id_))
        await self._store.add(batch)
        worker.run(id_)
        return batch

    async def get(self, id_: str, sees_only: str | None) -> Batch:
        """Returns a batch as it stands.

        Raises:
            GatewayError: NOT_FOUND: there is none, or it is somebody else's.
        """
        return await self._store.get(id_, sees_only)

    async def list(self, sees_only: str | None, *, limit: int, after: str) -> tuple[list[Batch], bool]:
        """Returns batches, the newest first, and whether there are more."""
        return await self._store.list(sees_only, limit=limit, after=after)

    async def cancel(self, id_: str, sees_only: str | None) -> Batch:
        """Has a batch stopped, and returns it as it stands; one that is being stopped already stays as it is.

        Raises:
            GatewayError: CONFLICT: it has ended; else as for `get`.
        """
        await self._store.get(id_, sees_only)
        stopped = await self._store.change(
            id_, where=_STOPPABLE, status=Status.CANCELLING, ending=Status.CANCELLED, cancelling_at=self._store.now()
        )
        batch = await self._store.get(id_)
        if stopped and self.worker is not None:
            self.worker.cancel(id_)
        elif batch.status not in {Status.CANCELLING, Status.CANCELLED}:
            raise GatewayError(
                ErrorKind.ERROR_KIND_CONFLICT, f"The batch cannot be cancelled, for its status is '{batch.status}'.", param="id"
            )
        return batch


def _check_notes(metadata: Mapping[str, str]) -> None:
    if len(metadata) > _MOST_NOTES:
        raise _invalid("metadata", f"must have at most {_MOST_NOTES} names")
    for name, value in metadata.items():
        if not 1 <= len(name) <= _LONGEST_NAME or len(value) > _LONGEST_VALUE:
            raise _invalid("metadata", f"must have names of 1 to {_LONGEST_NAME} characters and values of at most {_LONGEST_VALUE}")


def _invalid(param: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{param}' {what}.", param=param)
