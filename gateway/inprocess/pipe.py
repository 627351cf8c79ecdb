"""One direction of a streaming call in one process: messages handed from a writer to a reader, with one message of buffer.

Nothing is polled and no queue is locked: a reader or a writer that must wait leaves a future, which the other side completes.
A pipe knows neither RPC nor status; `gateway.inprocess.rpc` decides what it means when a side is let go.
"""

import asyncio
from collections import deque
from typing import Any

import grpc

_BUFFERED_MESSAGES = 1
_EOF = grpc.aio.EOF


class Pipe:
    """Messages from one writer to one reader, in order."""

    __slots__ = ("_ended", "_loop", "_messages", "_reader", "_writer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._messages: deque[Any] = deque()
        self._ended = False
        self._reader: asyncio.Future[Any] | None = None
        self._writer: asyncio.Future[bool] | None = None

    def __len__(self) -> int:
        """Returns how many messages have been written and not read."""
        return len(self._messages)

    def push(self, message: Any) -> asyncio.Future[bool] | None:
        """Hands a message over.

        Returns:
            None if the writer may go on. Else what it has to await before it does: whether the reader still reads. The message is
            on its way in both cases.

        Raises:
            grpc.aio.UsageError: Another write is still waiting.
        """
        reader = self._reader
        if reader is not None:
            self._reader = None
            if not reader.done():
                reader.set_result(message)
                return None
        if self._writer is not None and not self._writer.done():
            raise grpc.aio.UsageError("Another write is still waiting: await it before the next.")
        self._messages.append(message)
        if len(self._messages) <= _BUFFERED_MESSAGES:
            return None
        self._writer = self._loop.create_future()
        return self._writer

    def end(self) -> None:
        """Tells the reader that nothing follows what has been written."""
        self._ended = True
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(_EOF)

    def take(self) -> Any:
        """Returns the next message; `EOF` after the last one; None if it is not known yet which, and `expect` will tell."""
        if self._messages:
            message = self._messages.popleft()
            if self._writer is not None:
                self._wake_writer(still_read=True)
            return message
        return _EOF if self._ended else None

    def expect(self) -> asyncio.Future[Any]:
        """Returns what to await for the next message or `EOF`, when `take` has found neither.

        A reader that is cancelled while it awaits must call `take_back`. (It awaits the bare future because that happens for most
        messages, and a coroutine around it would cost as much as the hand-over.)

        Raises:
            grpc.aio.UsageError: Another read is still waiting.
        """
        if self._reader is not None and not self._reader.done():
            raise grpc.aio.UsageError("Another read is still waiting: await it before the next.")
        self._reader = self._loop.create_future()
        return self._reader

    def take_back(self, reader: asyncio.Future[Any]) -> None:
        """Keeps for the next read what arrived between a reader's cancellation and now."""
        if reader.done() and not reader.cancelled() and reader.result() is not _EOF:
            self._messages.appendleft(reader.result())

    def clear(self) -> None:
        """Drops what has been written and not read."""
        self._messages.clear()

    def wake_writer(self) -> None:
        """Lets a waiting writer go on with the news that nobody reads."""
        if self._writer is not None:
            self._wake_writer(still_read=False)

    def cancel_reader(self) -> None:
        """Makes a waiting reader fail with `CancelledError`."""
        if self._reader is not None:
            self._reader.cancel()

    def cancel_writer(self) -> None:
        """Makes a waiting writer fail with `CancelledError`."""
        if self._writer is not None:
            self._writer.cancel()

    def _wake_writer(self, *, still_read: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and not writer.done():
            writer.set_result(still_read)
