"""What a handler sees of an RPC in one process: the whole of `grpc.aio.ServicerContext`.

Above it: handlers. Below it: `gateway.inprocess.rpc`. Where grpc.aio's own behaviour is odd and this one's is better, the docstring
says so; where a handler could notice a difference, there is none.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NoReturn

import grpc

from gateway.inprocess.metadata import Metadatum, Pairs, checked
from gateway.inprocess.rpc import FINISHED_DETAILS, Rpc

_log = logging.getLogger(__name__)

# An attribute of an enum costs a tenth of a microsecond, and a unary call is to cost ten.
_OK = grpc.StatusCode.OK
_EOF = grpc.aio.EOF
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_metadatum = partial(tuple.__new__, Metadatum)  # a third of what the class's own way costs
_INVALID_METADATA_DETAILS = "Invalid metadata"
PEER = "inproc"
"""What `peer` says of every caller, and of no caller on a network."""


class ServicerContext(grpc.aio.ServicerContext[Any, Any]):
    """One RPC, from its handler's side."""

    __slots__ = (
        "_abort_error",
        "_adopt",
        "_code",
        "_details",
        "_done_callbacks",
        "_illegal_metadata",
        "_rpc",
        "_snapshot",
        "_trailing_metadata",
    )

    def __init__(self, rpc: Rpc, adopt: Callable[[Any], Any], snapshot: Callable[[Any], Any]) -> None:
        """Makes a context.

        Args:
            rpc: The RPC.
            adopt: Makes a request of what the client handed over.
            snapshot: Makes of a response what is handed to the client.
        """
        self._rpc = rpc
        self._adopt = adopt
        self._snapshot = snapshot
        self._code: Any = None
        self._details = ""
        self._trailing_metadata: Pairs = ()
        self._illegal_metadata = False
        self._abort_error: grpc.aio.AbortError | None = None
        self._done_callbacks: list[Callable[[Any], None]] | None = None

    async def read(self) -> Any:
        """Returns the next request, or `grpc.aio.EOF` after the last.

        Raises:
            asyncio.CancelledError: The call was abandoned. (grpc.aio says `EOF` here, as if the client had written all it had.)
        """
        requests = self._rpc.requests
        if requests is None:
            return _EOF
        if self._rpc.abandoned:
            raise asyncio.CancelledError
        message = requests.take()
        if message is None:
            arriving = requests.expect()
            try:
                message = await arriving
            except asyncio.CancelledError:
                requests.take_back(arriving)
                raise
        return message if message is _EOF else self._adopt(message)

    async def write(self, message: Any) -> None:
        """Sends a response; waits while the client has one message unread.

        Raises:
            asyncio.CancelledError: The call was abandoned.
            grpc.aio.UsageError: The call has ended, has no stream of responses, or another write is waiting.
        """
        blocked = self.send(message)
        if blocked is not None:
            await blocked

    def send(self, message: Any) -> asyncio.Future[bool] | None:
        """Does what `write` does, but returns what there is to wait for."""
        rpc = self._rpc
        if self._abort_error is not None:
            raise self._abort_error
        if rpc.abandoned:
            raise asyncio.CancelledError
        if rpc.finished:
            raise grpc.aio.UsageError(FINISHED_DETAILS)
        if rpc.responses is None:
            raise grpc.aio.UsageError(f"{rpc.method} has a unary response: return it.")
        snapshot = self._snapshot(message)
        if rpc.initial_metadata is None:
            rpc.announce(())
        return rpc.responses.push(snapshot)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Sends metadata ahead of the first message.

        Raises:
            grpc.aio.InternalError: A key or a value is not legal; the client gets `INTERNAL`.
            grpc.aio.UsageError: It has been sent already, by this method or by the first message, or the call has ended.
        """
        if self._abort_error is not None:
            raise self._abort_error
        rpc = self._rpc
        if rpc.abandoned:
            raise asyncio.CancelledError
        if rpc.finished:
            raise grpc.aio.UsageError(FINISHED_DETAILS)
        if rpc.initial_metadata is not None:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        try:
            metadata = checked(initial_metadata, tuples_only=True)
        except grpc.aio.InternalError:
            rpc.complete(grpc.StatusCode.INTERNAL, _INVALID_METADATA_DETAILS, ())
            raise
        rpc.announce(metadata)

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Ends the call with an error. The client has it before the handler has unwound.

        Raises:
            grpc.aio.AbortError: Always, and it must not be caught for good.
            grpc.aio.UsageError: The call has been aborted before.
            TypeError: The metadata is no sequence of pairs.
        """
        if self._abort_error is not None:
            raise grpc.aio.UsageError("Abort already called!")
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        self._abort_error = grpc.aio.AbortError("Locally aborted.")
        self.set_code(code)
        if details:
            self._details = details
        if self._status_code() is _OK:
            # grpc.aio leaves the client waiting for ever here; its synchronous sister makes it UNKNOWN.
            _log.error("%s was aborted with OK, which is no error.", self._rpc.method)
            self._code = grpc.StatusCode.UNKNOWN
        self._complete(self._details)
        raise self._abort_error

    async def abort_with_status(self, status: Any) -> NoReturn:
        """Ends the call with a `grpc.Status`. Raises what `abort` raises."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Sets the metadata that goes with the status.

        Raises:
            TypeError: It is no sequence of pairs of a str and a str or bytes.
        """
        if isinstance(trailing_metadata, dict):
            raise TypeError(f"Invalid trailing metadata, expected pairs and not a dict: {trailing_metadata!r}")
        try:
            self._trailing_metadata = checked(trailing_metadata, tuples_only=True)
            self._illegal_metadata = False
        except grpc.aio.InternalError:
            # As on the wire, the handler is not told and the client gets `INTERNAL`: whatever goes wrong, the status goes out.
            _log.exception("%s sets metadata that is not legal.", self._rpc.method)
            self._illegal_metadata = True

    def trailing_metadata(self) -> Any:
        """Returns what has been set as trailing metadata."""
        return self._trailing_metadata

    def invocation_metadata(self) -> Any:
        """Returns what the client sent: a tuple of named pairs, `key` and `value`."""
        return tuple(map(_metadatum, self._rpc.invocation_metadata))

    def set_code(self, code: Any) -> None:
        """Sets the status code of a call whose handler does not abort: a `grpc.StatusCode` or its number."""
        self._code = code

    def code(self) -> Any:
        """Returns what has been set as code, None before."""
        return self._code

    def set_details(self, details: str) -> None:
        """Sets the status message."""
        self._details = details

    def details(self) -> str:
        """Returns what has been set as status message."""
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:  # noqa: ARG002 (nothing to compress)
        """Does nothing: there are no bytes to compress.

        Raises:
            RuntimeError: The initial metadata is out, after which the wire takes no compression any more.
        """
        if self._rpc.initial_metadata is not None:
            raise RuntimeError("Compression setting must be specified before sending initial metadata")

    def disable_next_message_compression(self) -> None:
        """Does nothing: there are no bytes to compress."""

    def peer(self) -> str:
        """Returns `PEER`."""
        return PEER

    def peer_identities(self) -> Iterable[bytes] | None:
        """Returns None: the caller is this process."""
        return None

    def peer_identity_key(self) -> str | None:
        """Returns None: the caller is this process."""
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Returns an empty mapping: no transport has authenticated anybody."""
        return {}

    def time_remaining(self) -> Any:
        """Returns the seconds until the deadline, not below 0; None without a deadline."""
        return self._rpc.time_remaining()

    def cancelled(self) -> bool:
        """Returns whether the client cancelled the call or its deadline passed, which grpc.aio does not tell."""
        return self._rpc.abandoned

    def done(self) -> bool:
        """Returns whether the call has its status."""
        return self._rpc.finished or self._rpc.abandoned

    def add_done_callback(self, callback: Any) -> None:
        """Has `callback` called with this context when the handler is at its end."""
        if self._done_callbacks is None:
            self._done_callbacks = []
        self._done_callbacks.append(callback)

    def aborted_by(self, error: BaseException) -> bool:
        """Returns whether an error is the one that `abort` raised."""
        return error is self._abort_error

    def return_unary(self, response: Any) -> None:
        """Ends the call with the response that the handler returned."""
        if self._abort_error is not None:
            self._report_suppressed_abort()
            return
        if self._code is not None and self._status_code() is not _OK:
            self._complete(self._details)
            return
        self._complete(self._details, self._snapshot(response))

    def return_stream(self) -> None:
        """Ends the call after the stream that the handler has written to its end."""
        if self._abort_error is not None:
            self._report_suppressed_abort()
            return
        self._complete(self._details)

    def fail(self, error: Exception) -> None:
        """Ends the call with what the handler raised: `UNKNOWN`, unless it had set a code."""
        if self._rpc.abandoned or self._rpc.finished:
            _log.debug("%s raised after its call had ended.", self._rpc.method, exc_info=error)
            return
        _log.error("%s raised an unexpected %s.", self._rpc.method, type(error).__name__, exc_info=error)
        if self._status_code() is _OK:
            self._code = grpc.StatusCode.UNKNOWN
        self._complete(f"Unexpected {type(error)}: {error}")

    def close(self) -> None:
        """Calls the done callbacks."""
        self._abort_error = None  # it holds the frames that hold this
        for callback in self._done_callbacks or ():
            try:
                callback(self)
            except Exception:  # noqa: BLE001 (somebody else's callback must not undo the call)
                _log.exception("A done callback of %s failed.", self._rpc.method)

    def _status_code(self) -> grpc.StatusCode:
        code = self._code
        if code is None:
            return _OK
        if isinstance(code, grpc.StatusCode):
            return code
        return _CODES.get(code, grpc.StatusCode.UNKNOWN)

    def _complete(self, details: str, response: Any = None) -> None:
        if self._illegal_metadata:
            self._rpc.complete(grpc.StatusCode.INTERNAL, _INVALID_METADATA_DETAILS, ())
            return
        self._rpc.complete(self._status_code(), details, self._trailing_metadata, response)

    def _report_suppressed_abort(self) -> None:
        _log.error("%s went on after it had aborted its call: the abort stands.", self._rpc.method)
