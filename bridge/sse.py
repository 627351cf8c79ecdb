"""A stream of server-sent events to one client.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

import asyncio
from typing import Self

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from bridge.call import Call

_COMMENT = b": keep-alive\n\n"


class _Response(web.StreamResponse):
    """An answer whose headers leave with its first event, in one write."""

    _send_headers_immediately = False


class EventStream:
    """Writes events to a client, and comments while there are none.

    A comment keeps clients and proxies from giving up on a silent connection. One timer a stream sees to it; it looks at the time
    of the last write when it fires, so that a write costs nothing extra.
    """

    def __init__(self, call: Call, keepalive_seconds: float) -> None:
        """Makes a stream; nothing is sent before it is entered."""
        self._call = call
        self._response = _Response(headers=call.answer_headers("text/event-stream"))
        self._writer: AbstractStreamWriter | None = None
        self._loop = call.loop
        self._keepalive_seconds = keepalive_seconds
        self._last_write = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Prepares the headers, which are sent with the first event."""
        self._call.answering = True
        self._writer = await self._response.prepare(self._call.http)
        self._last_write = self._loop.time()
        if self._keepalive_seconds > 0:
            self._timer = self._loop.call_later(self._keepalive_seconds, self._tick)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops the comments."""
        self._close()

    async def write(self, data: bytes) -> None:
        """Sends whole events; waits while the client reads too slowly."""
        self._last_write = self._loop.time()
        assert self._writer is not None  # noqa: S101 (for the type checker: the stream has been entered)
        await self._writer.write(data)  # the response's own `write` would only check once more that it may

    async def end(self, data: bytes) -> web.StreamResponse:
        """Sends the last events and ends the stream."""
        self._close()
        await self._response.write_eof(data)
        return self._response

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._comment is not None:
            self._comment.cancel()
            self._comment = None

    def _tick(self) -> None:
        silent_since = self._loop.time() - self._last_write
        if silent_since >= self._keepalive_seconds and (self._comment is None or self._comment.done()):
            self._comment = self._loop.create_task(self._response.write(_COMMENT))
            self._last_write = self._loop.time()
            silent_since = 0.0
        self._timer = self._loop.call_later(max(self._keepalive_seconds - silent_since, 0.001), self._tick)
