"""The mock's clock for streams that pause: many streams share one timer.

A timer and a heap operation for each of 20,000 chunks a second would cost more than sending them. Streams join the slot that fired
last, and a slot fires once a period and advances all of its streams.
"""

import asyncio
from typing import Protocol

_SLOT_SECONDS = 0.005


class Paced(Protocol):
    """A stream that is told when its next chunk is due."""

    def advance(self) -> bool:
        """Sends what is due; returns whether there is more to come."""
        ...


class Pacer:
    """Advances each stream once a period, counted from when it joined; up to 5 ms early in its first period."""

    def __init__(self, period_seconds: float) -> None:
        """Makes a pacer; it owns no timer while it has no streams."""
        self._loop = asyncio.get_running_loop()
        self._slots: list[set[Paced]] = [set() for _ in range(max(1, round(period_seconds / _SLOT_SECONDS)))]
        self._slot_seconds = period_seconds / len(self._slots)
        self._members = 0
        self._last = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def join(self, stream: Paced) -> None:
        """Advances `stream` from now on, until it says that it is done or `leave` is called."""
        if self._timer is None:
            self._due = self._loop.time() + self._slot_seconds
            self._timer = self._loop.call_at(self._due, self._fire)
        self._slots[self._last].add(stream)
        self._members += 1

    def leave(self, stream: Paced) -> None:
        """Forgets `stream`, if it is still here."""
        for slot in self._slots:
            if stream in slot:
                slot.remove(stream)
                self._members -= 1

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self) -> None:
        self._last = (self._last + 1) % len(self._slots)
        slot = self._slots[self._last]
        done = [stream for stream in slot if not stream.advance()]
        slot.difference_update(done)
        self._members -= len(done)
        # From the time that was due and not from now: a late timer must not stretch the streams.
        self._due += self._slot_seconds
        self._timer = self._loop.call_at(self._due, self._fire) if self._members else None
