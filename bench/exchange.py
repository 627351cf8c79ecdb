"""One HTTP connection of the load generator: writes a request, reads the answer, checks it, tells how it went.

It does as little as it can: no headers are parsed but the two that say where the answer ends, and events are counted by a search
for `data:` over the whole answer once it is there.
"""

import asyncio
import time
from typing import Protocol, cast

from bench import answers

# The one of a chat's text, and the one of a vector.
_ENDS = (answers.END.encode(), answers.VECTOR[-40:].encode())
_CHUNKED_END = b"\r\n0\r\n\r\n"
# The role, the finish reason and the end; a gateway may add the usage and a comment or event of its own.
_LEAST_EXTRA_EVENTS = 3
_MOST_EXTRA_EVENTS = 5


class Owner(Protocol):
    """Who sends requests over connections and keeps the tally."""

    def connected(self, exchange: "Exchange") -> None:
        """Hears that requests can be written."""

    def done(self, exchange: "Exchange", fault: str | None) -> None:
        """Hears that an answer ended, and what was wrong with it, if anything."""

    def lost(self, exchange: "Exchange") -> None:
        """Hears that the connection is closed; nothing follows."""


class Exchange(asyncio.Protocol):
    """The client's side of one connection."""

    def __init__(self, chunks: int, owner: "Owner") -> None:
        """Makes a connection.

        Args:
            chunks: Chunks with text that each answer shall have; 0 for answers in one piece.
            owner: Is told how it goes.
        """
        self._chunks = chunks
        self._owner = owner
        self.busy = False
        self.started = 0.0
        self.first = 0.0
        self.ended = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tells that requests can be written."""
        # A cast, since uvloop's transports do not inherit from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self._owner.connected(self)

    def send(self, request: bytes) -> None:
        """Writes a whole request; the one before must be done."""
        self.busy = True
        self._parts: list[bytes] = []
        self._size = 0
        self._tail = b""
        self._length = -1
        self.first = 0.0
        self.started = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Takes a piece of the answer and finds out whether it was the last one."""
        if not self.first and (not self._chunks or b"data:" in data):
            self.first = time.perf_counter()
        if not self._parts and not self._begin(data):
            return
        self._size += len(data)
        self._parts.append(data)
        if self._length >= 0:
            if self._size >= self._length:
                self._finish()
            return
        self._tail = data[-7:] if len(data) >= 7 else (self._tail + data)[-7:]
        if self._tail == _CHUNKED_END:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Tells that the connection is gone, and that the answer was cut short if one was awaited."""
        if self.busy:
            self._end("the connection was closed before the answer was complete")
        self._owner.lost(self)

    def _begin(self, data: bytes) -> bool:
        """Reads the head, which every server here sends in one piece; returns whether it could be read."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.transport.abort()
            self._end("the answer's head did not come in one piece")
            return False
        head = data[: end + 2].lower()
        if not head.startswith(b"http/1.1 200 "):
            self.transport.abort()
            self._end(f"status {head[9:12].decode(errors='replace')}")
            return False
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self._length = end + 4 + int(head[at + 17 : head.index(b"\r\n", at + 17)])
        elif b"\r\ntransfer-encoding: chunked\r\n" not in head:
            self.transport.abort()
            self._end("the answer is neither chunked nor has it a length")
            return False
        return True

    def _finish(self) -> None:
        self.ended = time.perf_counter()
        answer = b"".join(self._parts)
        self._end(self._fault(answer))

    def _end(self, fault: str | None) -> None:
        self.busy = False
        self._owner.done(self, fault)

    def _fault(self, answer: bytes) -> str | None:
        if not self._chunks:
            ended = any(end in answer for end in _ENDS)
            return None if ended and b'"usage"' in answer else "the answer is not whole"
        extra = answer.count(b"data:") - self._chunks
        if not _LEAST_EXTRA_EVENTS <= extra <= _MOST_EXTRA_EVENTS and self._length < 0:
            # Where a proxy cut events apart, the search did not find them.
            answer = bytes(answers.unchunked(answer[answer.index(b"\r\n\r\n") + 4 :]))
            extra = answer.count(b"data:") - self._chunks
        if not _LEAST_EXTRA_EVENTS <= extra <= _MOST_EXTRA_EVENTS:
            return f"{self._chunks + extra} events where {self._chunks + _LEAST_EXTRA_EVENTS} were sent"
        return None if b"[DONE]" in answer[-64:] else "the stream has no end"
