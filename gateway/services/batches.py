"""BatchesService: files of requests that are answered in the background."""

from collections.abc import Callable

import orjson
from twinspan.v1 import batches_pb2

from gateway.backends.choice import Batches
from gateway.batches.batch import Batch
from gateway.batches.desk import Order
from gateway.rpc.call import RpcCall
from gateway.services.files import page_limit
from gateway.services.ownership import caller_name, sees_only

_DEFAULT_LISTED, _MOST_LISTED = 20, 100
_SAME_NAME = (
    *("id", "endpoint", "input_file_id", "completion_window", "output_file_id", "error_file_id", "created_at", "in_progress_at"),
    *("expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"),
)


class BatchesService:
    """Serves `twinspan.v1.BatchesService`."""

    def __init__(self, batches: Callable[[RpcCall], Batches]) -> None:
        """Makes the service over what returns where a caller's batches are."""
        self._batches = batches

    async def Create(  # noqa: N802 (the RPC's name)
        self, request: batches_pb2.BatchesServiceCreateRequest, call: RpcCall
    ) -> batches_pb2.BatchesServiceCreateResponse:
        """Makes a batch."""
        order = Order(
            request.input_file_id,
            request.endpoint,
            request.completion_window,
            dict(request.metadata),
            request.output_expires_after_seconds if request.HasField("output_expires_after_seconds") else None,
        )
        return batches_pb2.BatchesServiceCreateResponse(
            batch=_batch(await self._batches(call).create(order, caller_name(call), sees_only(call)))
        )

    async def List(  # noqa: N802 (the RPC's name)
        self, request: batches_pb2.BatchesServiceListRequest, call: RpcCall
    ) -> batches_pb2.BatchesServiceListResponse:
        """Lists the caller's batches."""
        limit = page_limit(request.limit if request.HasField("limit") else None, _DEFAULT_LISTED, _MOST_LISTED)
        batches, more = await self._batches(call).list(sees_only(call), limit=limit, after=request.after)
        return batches_pb2.BatchesServiceListResponse(batches=[_batch(batch) for batch in batches], has_more=more)

    async def Get(self, request: batches_pb2.BatchesServiceGetRequest, call: RpcCall) -> batches_pb2.Batch:  # noqa: N802 (the RPC's name)
        """Returns a batch as it stands."""
        return _batch(await self._batches(call).get(request.id, sees_only(call)))

    async def Cancel(  # noqa: N802 (the RPC's name)
        self, request: batches_pb2.BatchesServiceCancelRequest, call: RpcCall
    ) -> batches_pb2.BatchesServiceCancelResponse:
        """Stops a batch."""
        return batches_pb2.BatchesServiceCancelResponse(batch=_batch(await self._batches(call).cancel(request.id, sees_only(call))))


def _batch(batch: Batch) -> batches_pb2.Batch:
    return batches_pb2.Batch(
        status=batches_pb2.BatchStatus.Value(f"BATCH_STATUS_{batch.status.upper()}"),
        errors=[batches_pb2.BatchError(**problem) for problem in orjson.loads(batch.errors)],
        total_requests=batch.total,
        completed_requests=batch.completed,
        failed_requests=batch.failed,
        metadata=orjson.loads(batch.metadata),
        **{name: getattr(batch, name) for name in _SAME_NAME},
    )
