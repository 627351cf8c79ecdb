"""How long a provider may take, phase by phase, and the one timer that watches over all requests under way.

Above is `gateway.providers.upstream`, which is watched. Connecting is not watched here: only a request that finds no pooled
connection pays for that limit, inside aiohttp's connector.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

from aiohttp import StreamReader

from gateway.providers.send_error import Phase

LOOK_SECONDS: Final = 1.0
"""How often all exchanges are looked at, even if no limit can be broken yet.

aiohttp 3.14 forgets to tell the reader of a body when a chunk of it is malformed, and just closes the connection.
"""

_GRANULARITY_SECONDS: Final = 0.001
"""Event loops round a timer to milliseconds, so it may fire this much before its time."""

_SPACING_SECONDS: Final = 0.00001
"""The least time between two looks at all exchanges, for each of them: ten times what looking at one takes."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The limits of one request, in seconds, each above 0.

    Attributes:
        connect: To resolve, connect and agree on TLS, where no pooled connection is at hand.
        first_token: From the request being written to the first bytes of the answer's body.
        idle: Between two pieces of the body. It counts only while somebody waits for the next piece, so a slow reader is no stall.
        total: From `Sender.send` being called to the end of the body.
    """

    connect: float
    first_token: float
    idle: float
    total: float


class Watched:
    """An exchange with a provider that ends when it takes too long.

    Args:
        timeouts: Its limits.
        sent_at: The loop's time at which the request is written.
        total_at: The loop's time at which it must have ended.
    """

    __slots__ = ("_content", "_first_at", "_timeouts", "_total_at", "_waiting_since")

    def __init__(self, timeouts: Timeouts, sent_at: float, total_at: float) -> None:
        self._timeouts = timeouts
        self._first_at = sent_at + timeouts.first_token
        self._total_at = total_at
        self._content: StreamReader | None = None
        """The body, once the answer's headers are in."""
        self._waiting_since: float | None = None
        """When somebody began to wait for the next piece; None while nobody waits."""

    @abstractmethod
    def abort(self) -> None:
        """Ends the exchange without a reason of its own."""

    @abstractmethod
    def _is_lost(self) -> bool:
        """Ends the exchange if its connection is gone, and returns whether it is. The body has not ended."""

    @abstractmethod
    def _expire(self, phase: Phase, seconds: float) -> None:
        """Ends the exchange, whose `phase` lasted longer than its limit of `seconds`."""

    def check(self, now: float) -> float:
        """Ends the exchange if a limit is broken, and returns when to look again: before any limit can be broken."""
        timeouts = self._timeouts
        content = self._content
        if content is not None and (content.is_eof() or self._is_lost()):
            # If all is here, that nobody has read it yet is not the provider's fault.
            return inf
        if content is None or content.total_bytes == 0:
            phase, due, limit = Phase.FIRST_TOKEN, self._first_at, timeouts.first_token
        else:
            since = now if self._waiting_since is None else self._waiting_since
            phase, due, limit = Phase.BODY, since + timeouts.idle, timeouts.idle
        if self._total_at < due:
            phase, due, limit = Phase.TOTAL, self._total_at, timeouts.total
        if due - now < _GRANULARITY_SECONDS:
            self._expire(phase, limit)
            return inf
        # If the first bytes come at once, a stall can be due before the first token would have been.
        return min(due, now + timeouts.idle, now + LOOK_SECONDS)


class Watch:
    """Watches over all exchanges of a sender with one timer, which costs a request next to nothing, and a piece nothing at all.

    The timer stands at the earliest time at which any exchange can break a limit, and at most LOOK_SECONDS ahead. Progress never
    moves it: when it fires, it looks at what has happened since, and is set again.
    """

    __slots__ = ("_due", "_exchanges", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._exchanges: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf

    def __len__(self) -> int:
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Watched]:
        return iter(self._exchanges)

    def add(self, exchange: Watched, due: float) -> None:
        """Watches over an exchange, none of whose limits can be broken before the loop's time is `due`."""
        self._exchanges.add(exchange)
        if due < self._due:
            self._set(due)

    def discard(self, exchange: Watched) -> None:
        """Forgets an exchange that has ended."""
        self._exchanges.discard(exchange)

    def close(self) -> None:
        """Stops watching."""
        self._exchanges.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, inf

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._check)

    def _check(self) -> None:
        self._timer, self._due = None, inf
        now = self._loop.time()
        nearest = min([exchange.check(now) for exchange in tuple(self._exchanges)], default=inf)
        if nearest < self._due:
            # If a provider hangs, a thousand exchanges may come due one by one. Looking at all of them each time must stay cheap.
            self._set(max(nearest, now + len(self._exchanges) * _SPACING_SECONDS))
