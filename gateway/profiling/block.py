"""The block profile: what holds the event loop up, for so long that others must wait.

The loop beats every few milliseconds. A thread listens: while a beat is late it looks, again and again, where the loop's thread
stands. Once the loop goes on, the whole delay is put down to the places that were seen, each as often as it was.
"""

import asyncio
import sys
import threading
import time
from collections import Counter
from typing import Final

from gateway.profiling.profile import Profile, Stack, ValueType
from gateway.profiling.sampling import sampled
from gateway.profiling.stacks import stack_of_frame

_BEAT_SECONDS: Final = 0.005
_LATE_NS: Final = 50_000_000
"""From what delay on the loop counts as held up."""


class _Watch:
    """Listens to one event loop, whose thread makes it."""

    def __init__(self, profile: Profile, loop: asyncio.AbstractEventLoop) -> None:
        self._profile = profile
        self._loop = loop
        self._ident = threading.get_ident()
        self._beat_ns = time.monotonic_ns()
        self._late: Counter[Stack] = Counter()
        self._timer = loop.call_later(_BEAT_SECONDS, self._beat)

    def stop(self) -> None:
        """Stops the beat."""
        self._timer.cancel()

    def look(self) -> None:
        """Notes where the loop's thread stands, if its beat is late."""
        if time.monotonic_ns() - self._beat_ns >= _LATE_NS:
            self._late[stack_of_frame(sys._current_frames().get(self._ident))] += 1  # noqa: SLF001 (there is no other way)

    def _beat(self) -> None:
        now_ns = time.monotonic_ns()
        delay_ns, self._beat_ns = now_ns - self._beat_ns, now_ns
        self._timer = self._loop.call_later(_BEAT_SECONDS, self._beat)
        if self._late:
            late, self._late = self._late, Counter()
            looks = late.total()
            for stack, count in late.items():
                self._profile.add(stack, 1, delay_ns * count // looks)


async def block(seconds: float) -> Profile:
    """Returns what held the running event loop up during so many seconds, for 50 ms or longer each time."""
    started_ns, began_ns = time.time_ns(), time.monotonic_ns()
    profile = Profile(
        (ValueType("contentions", "count"), ValueType("delay", "nanoseconds")),
        ValueType("contentions", "count"),
        1,
        started_ns,
        comments=(f"Delays of the event loop of {_LATE_NS // 1_000_000} ms or longer.",),
    )
    watch = _Watch(profile, asyncio.get_running_loop())
    try:
        async with sampled(watch.look, _BEAT_SECONDS, "profile block"):
            await asyncio.sleep(seconds)
            await asyncio.sleep(2 * _BEAT_SECONDS)  # so that a delay at the very end is told
    finally:
        watch.stop()
    profile.duration_ns = time.monotonic_ns() - began_ns
    return profile
