"""Keeps one response while it is made, so that whoever knows of it finds it again.

What a provider makes is noted as soon as its id is known, for a client that leaves in the middle may ask for it later; what the
gateway writes itself is kept once it is whole, before its end is told. Above is ResponsesService; below is what is kept.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

import msgspec
from twinspan.v1 import events_pb2

from gateway.errors import GatewayError
from gateway.responses.kept import Kept, KeptResponses
from gateway.responses.operation import Past, ResponsesOperation

_log = logging.getLogger(__name__)


class _Told(msgspec.Struct):
    id: str | None = None


class _Event(msgspec.Struct):
    response: _Told | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)
_RESPONSE: Final = msgspec.json.Decoder(_Told)
_LONGEST_ID: Final = 256


class Keeping:
    """Keeps a response, unless its request says that it must not be. It is left once the answer is."""

    def __init__(self, kept: KeptResponses, operation: ResponsesOperation, owner: str, past: Past | None) -> None:
        """Makes what keeps the response of an operation.

        Args:
            kept: Where it is kept.
            operation: What is asked; it must be checked.
            owner: The name of the key that asks.
            past: What the request goes on from.
        """
        self._kept = kept
        self._operation = operation
        self._owner = owner
        self._previous = past.response_id if past is not None else None
        self._wanted = operation.stores
        self._noting: asyncio.Task[None] | None = None
        self._ended = False

    def begun(self, events: Sequence[events_pb2.JsonEvent]) -> None:
        """Notes whose the response is, if a provider makes it, as far as its first events tell its id."""
        target = self._operation.native_target
        if not self._wanted or target is None or not events:
            return
        try:
            told = _EVENT.decode(events[0].json).response
        except msgspec.MsgspecError:
            return
        if told is not None and told.id and len(told.id) <= _LONGEST_ID:
            noted = Kept(target.model, target.agent, target.provider.account, self._previous)
            self._noting = asyncio.create_task(self._note(told.id, target.provider.name, noted))

    async def ended(self) -> None:
        """Keeps the response, which is whole; on disk when this returns. Only the first call counts."""
        if self._ended or not self._wanted:
            return
        self._ended = True
        if self._noting is not None:
            await asyncio.wait((self._noting,))
            return
        answered = self._operation.answered()
        if answered is None:
            return
        try:
            id_ = _RESPONSE.decode(answered.response).id
        except msgspec.MsgspecError:
            return
        if not id_ or len(id_) > _LONGEST_ID:
            return
        target = answered.target
        with _unkept():
            if answered.native:
                noted = Kept(target.model, target.agent, target.provider.account, self._previous)
                await self._kept.keep(id_, self._owner, target.provider.name, noted)
            else:
                await self._kept.keep_own(id_, self._owner, answered, self._previous)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _type: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._noting is not None:
            await asyncio.wait((self._noting,))

    async def _note(self, id_: str, provider: str, noted: Kept) -> None:
        with _unkept():
            await self._kept.keep(id_, self._owner, provider, noted)


@contextmanager
def _unkept() -> Iterator[None]:
    """Lets a response be answered that cannot be kept: an answer is worth more. The fault is in the log."""
    try:
        yield
    except GatewayError:
        pass  # which has been logged where it was found
    except (OSError, sqlite3.Error) as error:
        _log.error("A response could not be kept: %s", error)
