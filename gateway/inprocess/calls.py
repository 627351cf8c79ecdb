"""What a client holds of an RPC in one process: the four kinds of `grpc.aio` calls.

Above it: generated stubs. Below it: `gateway.inprocess.rpc`. Errors, and the exceptions for wrong use, are those of grpc.aio's
calls over a network.
"""

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Callable, Coroutine, Generator
from enum import Enum
from typing import Any, Final, Self

import grpc

from gateway.inprocess.pipe import Pipe
from gateway.inprocess.rpc import FINISHED_DETAILS, Rpc

_log = logging.getLogger(__name__)

_OK = grpc.StatusCode.OK
_EOF = grpc.aio.EOF
LOCAL_CANCELLATION_DETAILS: Final = "Locally cancelled by application!"
_HALF_CLOSED_DETAILS = 'RPC is half closed after calling "done_writing".'
_STYLES_MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."


class _Style(Enum):
    ITERATOR = 1
    READ_AND_WRITE = 2


class Call(grpc.aio.Call):
    """What all four kinds share."""

    # No slots, for grpc.aio's classes have none. What most calls never change costs them nothing here.
    _response: Any = None
    _reading_style: _Style | None = None
    _writing_style = _Style.READ_AND_WRITE
    _half_closed = False

    def __init__(
        self,
        rpc: Rpc,
        snapshot: Callable[[Any], Any],
        adopt: Callable[[Any], Any],
        *,
        request_iterator: Any = None,
    ) -> None:
        """Makes the client's side of an RPC.

        Args:
            rpc: The RPC.
            snapshot: Makes of a request what is handed to the server.
            adopt: Makes a response of what the server handed over.
            request_iterator: Where the requests come from, if not from `write`.
        """
        self._rpc = rpc
        self._snapshot = snapshot
        self._adopt = adopt
        if request_iterator is not None:
            self._writing_style = _Style.ITERATOR
            rpc.feed(_feed(rpc, request_iterator, snapshot))

    def __del__(self) -> None:
        rpc = self._rpc
        if rpc.code is None:
            rpc.drop()

    def cancelled(self) -> bool:
        """Returns whether the call has ended with `CANCELLED`."""
        return self._rpc.code is grpc.StatusCode.CANCELLED

    def cancel(self) -> bool:
        """Cancels the call, and its handler with it. Idempotent; returns whether that made a difference."""
        return self._rpc.cancel(LOCAL_CANCELLATION_DETAILS)

    def done(self) -> bool:
        """Returns whether the status is known."""
        return self._rpc.code is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Has `callback` called with this call, in the present context, when the status is known; at once if it is."""
        reference = weakref.ref(self)
        context = contextvars.copy_context()

        def notify() -> None:
            call = reference()
            if call is None:
                return
            try:
                context.run(callback, call)
            except Exception:  # noqa: BLE001 (it runs in the middle of the server's work)
                _log.exception("A done callback of %r failed.", call)

        self._rpc.on_done(notify)

    def time_remaining(self) -> float | None:
        """Returns the seconds until the deadline, not below 0; None without a deadline."""
        return self._rpc.time_remaining()

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Returns the initial metadata, once it has come or cannot come any more."""
        while self._rpc.initial_metadata is None:
            await self._rpc.change()
        return grpc.aio.Metadata.from_tuple(self._rpc.initial_metadata)

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Returns the trailing metadata, once the status is known."""
        await self._settled()
        return grpc.aio.Metadata.from_tuple(self._rpc.trailing_metadata)

    async def code(self) -> grpc.StatusCode:
        """Returns the status code, once it is known."""
        return await self._settled()

    async def details(self) -> str:
        """Returns the status message, once it is known."""
        await self._settled()
        return self._rpc.details

    async def debug_error_string(self) -> str:
        """Returns code and message in one line, once they are known; empty if all is well."""
        await self._settled()
        return self._debug_error_string()

    async def wait_for_connection(self) -> None:
        """Returns at once, for there is nothing to connect.

        Raises:
            grpc.aio.AioRpcError: The call has failed already.
            asyncio.CancelledError: The call has been cancelled.
        """
        if self._rpc.code is not None:
            self._raise_for_status()

    def __repr__(self) -> str:
        rpc = self._rpc
        state = "under way" if rpc.code is None else f"ended with {rpc.code}, {rpc.details!r}"
        return f"<{type(self).__name__} of {rpc.method}, {state}>"

    async def _settled(self) -> grpc.StatusCode:
        while self._rpc.code is None:
            await self._rpc.change()
        return self._rpc.code

    def _debug_error_string(self) -> str:
        rpc = self._rpc
        if rpc.code is None or rpc.code is _OK:
            return ""
        return f"{rpc.code.name}:{rpc.details}" if rpc.details else rpc.code.name

    def _raise_for_status(self) -> None:
        """Raises what the status of a call that has ended stands for, if it is no success."""
        rpc = self._rpc
        if rpc.cancelled_locally:
            raise asyncio.CancelledError
        if rpc.code is not None and rpc.code is not _OK:
            raise grpc.aio.AioRpcError(
                rpc.code,
                grpc.aio.Metadata.from_tuple(rpc.initial_metadata or ()),
                grpc.aio.Metadata.from_tuple(rpc.trailing_metadata),
                rpc.details,
                self._debug_error_string(),
            )


class _UnaryResponse(Call):
    def __await__(self) -> Generator[Any, None, Any]:
        """Waits for the response.

        Raises:
            grpc.aio.AioRpcError: The call has failed.
            asyncio.CancelledError: The call has been cancelled, or the awaiting task; then the call is too.
        """
        rpc = self._rpc
        while rpc.code is None:
            try:
                yield from rpc.change()
            except asyncio.CancelledError:
                self.cancel()
                raise
        if rpc.code is not _OK:
            self._raise_for_status()
        if self._response is None:
            self._response = self._adopt(rpc.response)
        return self._response


class _StreamResponse(Call):
    def __aiter__(self) -> Self:
        """Returns the call itself: it is its only iterator, and holds nothing that holds it, so that it is freed as it is dropped.

        Raises:
            grpc.aio.UsageError: The call is read with `read`.
        """
        self._read_as(_Style.ITERATOR)
        return self

    async def __anext__(self) -> Any:
        """Returns the next response. Raises what `read` raises, and `StopAsyncIteration` after the last."""
        message = await self._next_response()
        if message is _EOF:
            raise StopAsyncIteration
        return message

    def read(self) -> Coroutine[Any, Any, Any]:
        """Returns the next response, or `grpc.aio.EOF` after the last.

        Raises:
            grpc.aio.AioRpcError: The call has failed.
            grpc.aio.UsageError: The call is iterated over.
            asyncio.CancelledError: The call has been cancelled, or the reading task; then the call is too.
        """
        if self._rpc.code is None:
            self._read_as(_Style.READ_AND_WRITE)
        return self._next_response()

    async def _next_response(self) -> Any:
        rpc = self._rpc
        message = rpc.take_response()
        if message is None:
            pipe = rpc.response_pipe()
            arriving = pipe.expect()
            try:
                message = await arriving
            except asyncio.CancelledError:
                pipe.take_back(arriving)
                self.cancel()
                raise
        if message is _EOF:
            self._raise_for_status()
            return message
        return self._adopt(message)

    def _read_as(self, style: _Style) -> None:
        if self._reading_style is None:
            self._reading_style = style
        elif self._reading_style is not style:
            raise grpc.aio.UsageError(_STYLES_MIXED)


class _StreamRequest(Call):
    async def write(self, request: Any) -> None:
        """Sends a request; waits while the server has one unread.

        Raises:
            grpc.aio.AioRpcError: The call failed while this waited.
            grpc.aio.UsageError: The requests come from an iterator, or another write is waiting.
            asyncio.CancelledError: The call has been cancelled, or the writing task; then the call is too.
            asyncio.InvalidStateError: The call has ended, or `done_writing` has been called.
        """
        if self._writing_style is _Style.ITERATOR:
            raise grpc.aio.UsageError(_STYLES_MIXED)
        rpc = self._rpc
        if rpc.finished or rpc.code is not None:
            raise asyncio.InvalidStateError(FINISHED_DETAILS)
        if self._half_closed:
            raise asyncio.InvalidStateError(_HALF_CLOSED_DETAILS)
        blocked = rpc.request_pipe().push(self._snapshot(request))
        if blocked is None:
            return
        try:
            still_read = await blocked
        except asyncio.CancelledError:
            self.cancel()
            raise
        if not still_read:
            self._raise_for_status()
            raise asyncio.InvalidStateError(FINISHED_DETAILS)

    async def done_writing(self) -> None:
        """Tells the server that nothing follows. Idempotent.

        Raises:
            grpc.aio.UsageError: The requests come from an iterator.
        """
        if self._writing_style is _Style.ITERATOR:
            raise grpc.aio.UsageError(_STYLES_MIXED)
        self._half_closed = True
        self._rpc.request_pipe().end()


class UnaryUnaryCall(_UnaryResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One request, one response."""


class UnaryStreamCall(_StreamResponse, grpc.aio.UnaryStreamCall[Any, Any]):
    """One request, a stream of responses."""


class StreamUnaryCall(_StreamRequest, _UnaryResponse, grpc.aio.StreamUnaryCall[Any, Any]):
    """A stream of requests, one response."""


class StreamStreamCall(_StreamRequest, _StreamResponse, grpc.aio.StreamStreamCall[Any, Any]):
    """A stream of requests, a stream of responses."""


async def _feed(rpc: Rpc, requests: Any, snapshot: Callable[[Any], Any]) -> None:
    """Writes the requests of an iterator. If that fails the call is cancelled, as on the wire."""
    written = False
    try:
        await _write_all(rpc.request_pipe(), requests, snapshot)
        written = True
    except Exception:  # noqa: BLE001 (it is the client's own, which learns that the call is cancelled)
        _log.debug("The requests of %s failed.", rpc.method, exc_info=True)
    finally:
        if not written and not rpc.finished:
            rpc.feeder = None  # which is what runs here, and is not to be cancelled
            rpc.cancel(LOCAL_CANCELLATION_DETAILS)


async def _write_all(pipe: Pipe, requests: Any, snapshot: Callable[[Any], Any]) -> None:
    """Writes requests to the last. An async generator is closed here and now, however that ends."""
    try:
        if hasattr(requests, "__aiter__"):
            async for request in requests:
                blocked = pipe.push(snapshot(request))
                if blocked is not None:
                    await blocked
        else:
            for request in requests:
                blocked = pipe.push(snapshot(request))
                if blocked is not None:
                    await blocked
        pipe.end()
    finally:
        if hasattr(requests, "aclose"):
            await requests.aclose()
