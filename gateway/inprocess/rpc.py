"""One RPC in one process: what its two sides share, and the rules for how it ends.

Above it: `gateway.inprocess.calls`, which the client holds, and `gateway.inprocess.context`, which the handler holds. An `Rpc`
knows neither, so that a client that drops its call is noticed. Below it: pipes of messages.

An RPC ends in one of two ways. The server completes it: its status reaches the client behind the last message. Or it is abandoned,
by the client's cancellation or by the deadline: the status is the client's own and at once, and the handler is cancelled.
"""

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import grpc

from gateway.inprocess.metadata import Pairs
from gateway.inprocess.pipe import Pipe

FINISHED_DETAILS: Final = "RPC already finished."
_EOF = grpc.aio.EOF
_FOREVER_SECONDS = 1e8


class Rpc:
    """The state of one RPC.

    Attributes:
        method: The full name of the method.
        invocation_metadata: What the client sent.
        initial_metadata: What the server sent ahead; None until it has sent it or the call has ended without.
        code: The status code as the client knows it; None while the call goes on.
        details: The status message that belongs to `code`.
        trailing_metadata: The metadata that belongs to `code`.
        response: The one response of a call with a unary response that has ended well.
        requests: The client's stream of messages; None if the request is unary.
        responses: The server's stream of messages; None if the response is unary.
        feeder: The task that writes the requests of a client that gave an iterator of them; None once it has ended.
        task: The task of the handler; None if none has been started, and once it has ended.
        started: Whether that task has begun to run.
        retired: Whether that task is at its end, or was never made.
        finished: Whether the server has said its last word.
        abandoned: Whether the client cancelled the call or its deadline passed, before the server finished.
        cancelled_locally: Whether the client cancelled the call.
    """

    __slots__ = (
        "_deadline",
        "_done_callbacks",
        "_live",
        "_loop",
        "_outcome",
        "_timer",
        "_waiters",
        "abandoned",
        "cancelled_locally",
        "code",
        "details",
        "feeder",
        "finished",
        "initial_metadata",
        "invocation_metadata",
        "method",
        "requests",
        "response",
        "responses",
        "retired",
        "started",
        "task",
        "trailing_metadata",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, method: str, invocation_metadata: Pairs, live: "set[Rpc]") -> None:
        """Makes an RPC that has not begun.

        Args:
            loop: The event loop of both sides.
            method: The full name of the method.
            invocation_metadata: What the client sends.
            live: Where the RPC is noted for as long as anybody may have to end it.
        """
        self._loop = loop
        self._live = live
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._outcome: tuple[grpc.StatusCode, str, Pairs] | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self._done_callbacks: list[Callable[[], None]] | None = None
        self.method = method
        self.invocation_metadata = invocation_metadata
        self.initial_metadata: Pairs | None = None
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing_metadata: Pairs = ()
        self.response: Any = None
        self.requests: Pipe | None = None
        self.responses: Pipe | None = None
        self.feeder: asyncio.Task[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.started = False
        self.retired = True
        self.finished = False
        self.abandoned = False
        self.cancelled_locally = False
        live.add(self)

    def limit(self, timeout_seconds: float) -> None:
        """Gives the call a deadline; if that has passed already, the call ends here."""
        self._deadline = time.monotonic() + timeout_seconds
        if timeout_seconds <= 0:
            self._expire()
        elif timeout_seconds < _FOREVER_SECONDS:
            self._timer = self._loop.call_later(timeout_seconds, self._expire)

    def time_remaining(self) -> float | None:
        """Returns the seconds until the deadline, not below 0; None without a deadline."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def announce(self, metadata: Pairs) -> None:
        """Sends the initial metadata."""
        self.initial_metadata = metadata
        self._wake_waiters()

    def request_pipe(self) -> Pipe:
        """Returns the client's stream of messages.

        Raises:
            grpc.aio.UsageError: The request is unary.
        """
        if self.requests is None:
            raise grpc.aio.UsageError(f"{self.method} has a unary request.")
        return self.requests

    def response_pipe(self) -> Pipe:
        """Returns the server's stream of messages.

        Raises:
            grpc.aio.UsageError: The response is unary.
        """
        if self.responses is None:
            raise grpc.aio.UsageError(f"{self.method} has a unary response.")
        return self.responses

    def take_response(self) -> Any:
        """Returns what `Pipe.take` returns. With the last message the status that waited behind it becomes known."""
        responses = self.responses
        if responses is None:
            return _EOF
        message = responses.take()
        if self._outcome is not None and not responses:
            self._settle(*self._outcome)
        return message

    def complete(self, code: grpc.StatusCode, details: str, trailing_metadata: Pairs, response: Any = None) -> None:
        """Ends the call on the server's behalf. Only the first time counts, and not at all if the call was abandoned before."""
        if self.finished:
            return
        self.finished = True
        if self.code is not None:
            return
        if self.feeder is not None:
            self.feeder.cancel()
        if self.requests is not None:
            self.requests.clear()
            self.requests.wake_writer()
            self.requests.cancel_reader()
        if self.responses:
            self._outcome = (code, details, trailing_metadata)
            return
        self.response = response
        self._settle(code, details, trailing_metadata)

    def cancel(self, details: str) -> bool:
        """Abandons the call because the client wants no more of it.

        Returns:
            Whether that made a difference.
        """
        if self.code is not None:
            return False
        self.cancelled_locally = True
        self._abandon(grpc.StatusCode.CANCELLED, details)
        return True

    def drop(self) -> None:
        """Abandons the call because nobody holds its client's side any more."""
        if self.code is None and not self._loop.is_closed():
            self.cancel("Cancelled upon garbage collection!")

    def on_done(self, callback: Callable[[], None]) -> None:
        """Has a function called when the status is known; at once if it is."""
        if self.code is not None:
            callback()
        elif self._done_callbacks is None:
            self._done_callbacks = [callback]
        else:
            self._done_callbacks.append(callback)

    def change(self) -> asyncio.Future[None]:
        """Returns a future for the next of two things: the initial metadata has come, or the status has."""
        waiter = self._loop.create_future()
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        return waiter

    def run(self, handler: Coroutine[Any, Any, None]) -> None:
        """Starts the task of the handler, in an empty context: the handler sees none of the client's variables."""
        self.retired = False
        self.task = self._loop.create_task(handler, context=contextvars.Context())

    def feed(self, feeder: Coroutine[Any, Any, None]) -> None:
        """Starts the task that writes the client's requests."""
        if self.code is not None:
            feeder.close()
            return
        self.feeder = self._loop.create_task(feeder)
        self.feeder.add_done_callback(self._feeder_ended)

    def retire(self) -> None:
        """Notes that the handler's task is at its end."""
        self.retired = True
        # A task that was cancelled holds its error, which holds the frames that hold this.
        self.task = None
        if self.code is not None and self.feeder is None:
            self._live.discard(self)

    def _feeder_ended(self, _feeder: asyncio.Task[None]) -> None:
        self.feeder = None
        if self.code is not None and self.retired:
            self._live.discard(self)

    def _expire(self) -> None:
        if self.code is None:
            self._abandon(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _abandon(self, code: grpc.StatusCode, details: str) -> None:
        self.abandoned = not self.finished
        self._outcome = None
        if self.feeder is not None:
            self.feeder.cancel()
        # A handler that is told nothing but "the stream has ended" would take the part for the whole: it is cancelled instead, and
        # so is whatever other task of its reads or writes.
        if self.started and not self.finished and self.task is not None:
            self.task.cancel()
        if self.requests is not None:
            self.requests.clear()
            self.requests.wake_writer()
            self.requests.cancel_reader()
        if self.responses is not None:
            self.responses.clear()
            self.responses.cancel_writer()
        self._settle(code, details, ())

    def _settle(self, code: grpc.StatusCode, details: str, trailing_metadata: Pairs) -> None:
        """Makes the status known to the client. Nothing that comes later changes it."""
        self.code = code
        self.details = details
        self.trailing_metadata = trailing_metadata
        self._outcome = None
        if self.initial_metadata is None:
            self.initial_metadata = ()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.responses is not None:
            self.responses.end()
        if self.retired and self.feeder is None:
            self._live.discard(self)
        self._wake_waiters()
        callbacks, self._done_callbacks = self._done_callbacks, None
        for callback in callbacks or ():
            callback()

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
