"""Batches that a provider runs. They are reached like the gateway's own, by the key that made them and by nobody else.

What the provider runs, the gateway does not see, so a key that is bound to agents may make such batches only if it may use all of
the provider's models, as for forwarding. Above is the batches service; below are the ledger and the provider's resources.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec
import orjson
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.backends import files, ledger
from gateway.backends.files import ProviderFiles
from gateway.backends.ledger import Ledger, ObjectId
from gateway.backends.resources import Body, Resources
from gateway.batches.batch import UNFINISHED, Batch, Status
from gateway.batches.desk import Order
from gateway.errors import GatewayError

KIND: Final = "batch"
_ID_SHOWN: Final = 64
_ASKED_AT_ONCE: Final = 8
_STATUSES: Final = frozenset(Status)
_TIMES: Final = (*("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"),)


class _Problem(msgspec.Struct):
    code: str | None = None
    message: str | None = None
    line: int | None = None
    param: str | None = None


class _Problems(msgspec.Struct):
    data: list[_Problem] = []


class _Counts(msgspec.Struct):
    total: int = 0
    completed: int = 0
    failed: int = 0


class _Batch(msgspec.Struct):
    """A batch as the provider shows it: https://platform.openai.com/docs/api-reference/batch/object."""

    id: ObjectId
    status: str
    endpoint: str = ""
    input_file_id: str = ""
    completion_window: str = ""
    created_at: int = 0
    expires_at: int | None = None
    output_file_id: ObjectId | None = None
    error_file_id: ObjectId | None = None
    errors: _Problems | None = None
    request_counts: _Counts | None = None
    metadata: dict[str, str] | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None


_BATCH: Final = msgspec.json.Decoder(_Batch)


class Rights(Protocol):
    """What the caller may do."""

    def require(self, model: str) -> None:
        """Raises a `GatewayError` unless the caller may use the model or agent of this name."""

    def require_route(self, route: str) -> None:
        """Raises a `GatewayError` unless the caller may use this route, given as `METHOD /path`."""


class ProviderBatches:
    """The batches of one provider, on behalf of one caller."""

    def __init__(self, resources: Resources, entries: Ledger, kept: ProviderFiles, rights: Rights) -> None:
        """Makes what reaches them.

        Args:
            resources: Asks the provider.
            entries: Who made what there.
            kept: The provider's files, on behalf of the same caller.
            rights: What the caller may do.
        """
        self._resources = resources
        self._entries = entries
        self._files = kept
        self._rights = rights

    async def create(self, order: Order, owner: str, sees_only: str | None) -> Batch:
        """Has the provider run a batch; see `BatchDesk.create`.

        Raises:
            GatewayError: The caller may not, its input is not the caller's, or the provider does not take the order.
        """
        self._rights.require(f"{self._name}/*")
        if not order.endpoint.startswith("/"):
            raise _invalid("endpoint", "must be a route, such as /v1/chat/completions")
        self._rights.require_route(f"POST {order.endpoint}")
        if await self._entries.get(files.KIND, self._name, order.input_file_id, sees_only) is None:
            raise files.no_such_file(order.input_file_id, "input_file_id")
        asked: dict[str, Any] = {
            "input_file_id": order.input_file_id,
            "endpoint": order.endpoint,
            "completion_window": order.completion_window,
        }
        if order.metadata:
            asked["metadata"] = dict(order.metadata)
        if order.output_seconds is not None:
            asked["output_expires_after"] = {"anchor": "created_at", "seconds": order.output_seconds}
        answer = await self._resources.ask("POST", "/batches", Body.of("application/json", orjson.dumps(asked)))
        return await self._noted(answer, owner)

    async def get(self, id_: str, sees_only: str | None) -> Batch:
        """Returns a batch as it stands; see `BatchDesk.get`."""
        known = await self._known(id_, sees_only)
        return await self._fresh(known)

    async def list(self, sees_only: str | None, *, limit: int, after: str) -> tuple[list[Batch], bool]:
        """Returns batches as they stand, the newest first, and whether there are more."""
        entries, more = await self._entries.list(KIND, self._name, sees_only, limit=limit, after=after)
        slots = asyncio.Semaphore(_ASKED_AT_ONCE)

        async def standing(entry: ledger.Entry) -> Batch:
            async with slots:
                return await self._fresh(entry)

        batches: list[Batch] = []
        for found in await asyncio.gather(*map(standing, entries), return_exceptions=True):
            if isinstance(found, BaseException):
                raise found
            batches.append(found)
        return batches, more

    async def cancel(self, id_: str, sees_only: str | None) -> Batch:
        """Has a batch stopped; see `BatchDesk.cancel`."""
        known = await self._known(id_, sees_only)
        answer = await self._resources.ask("POST", f"{_path(id_)}/cancel", Body.of("application/json", b"{}"))
        return await self._noted(answer, known.owner)

    @property
    def _name(self) -> str:
        return self._resources.provider.name

    async def _known(self, id_: str, owner: str | None) -> ledger.Entry:
        found = await self._entries.get(KIND, self._name, id_, owner)
        if found is None:
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_FOUND, f"There is no batch '{id_[:_ID_SHOWN]}'. GET /v1/batches lists yours.", param="id"
            )
        return found

    async def _fresh(self, known: ledger.Entry) -> Batch:
        """Returns a batch as it stands; one that has ended does not change any more, so nobody is asked."""
        batch = self._batch(known.body, known.owner)
        if batch.status not in UNFINISHED:
            return batch
        return await self._noted(await self._resources.ask("GET", _path(known.id)), known.owner)

    async def _noted(self, answer: bytes, owner: str) -> Batch:
        """Notes how a batch stands. The files with its answers are its owner's as well."""
        batch = self._batch(answer, owner)
        for id_ in filter(None, (batch.output_file_id, batch.error_file_id)):
            if await self._entries.get(files.KIND, self._name, id_, None) is None:
                await self._files.adopt(id_, owner)
        await self._entries.note(ledger.Entry(KIND, self._name, batch.id, owner, "", None, answer))
        return batch

    def _batch(self, body: bytes, owner: str) -> Batch:
        try:
            told = _BATCH.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            told = None
        if told is None or told.status not in _STATUSES:
            raise GatewayError(
                ErrorKind.ERROR_KIND_PROVIDER_ERROR,
                f"The provider '{self._name}' answered with something that is no batch.",
                provider=self._name,
            )
        counts = told.request_counts or _Counts()
        problems = told.errors.data if told.errors is not None else []
        return Batch(
            id=told.id,
            owner=owner,
            endpoint=told.endpoint,
            input_file_id=told.input_file_id,
            completion_window=told.completion_window,
            metadata=orjson.dumps(told.metadata or {}).decode(),
            output_seconds=None,
            created_at=told.created_at,
            expires_at=told.expires_at or 0,
            status=told.status,
            output_file_id=told.output_file_id,
            error_file_id=told.error_file_id,
            errors=orjson.dumps([_problem(problem) for problem in problems]).decode(),
            total=counts.total,
            completed=counts.completed,
            failed=counts.failed,
            **{name: getattr(told, name) for name in _TIMES},
        )


def _path(id_: str) -> str:
    return f"/batches/{quote(id_, safe='')}"


def _problem(problem: _Problem) -> Mapping[str, Any]:
    told = {"code": problem.code or "", "message": problem.message or "", "line": problem.line, "param": problem.param}
    return {name: value for name, value in told.items() if value is not None}


def _invalid(param: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{param}' {what}.", param=param)
