"""The mutex profile: who waits for a lock, and for how long.

A hundred times a second it is looked who waits: tasks for asyncio's locks, semaphores and conditions, threads for those of
`threading` that are written in Python. Waiting for an event or for a queue is no contention. A lock that C code takes by itself
(`threading.Lock`, `with lock:`) leaves no trace in a stack, so a thread that waits for one is not seen.
"""

import asyncio
import sys
import time
from typing import Any, Final

from gateway.profiling.profile import Profile, Stack, ValueType
from gateway.profiling.stacks import stack_of_frame, stack_of_task

_PERIOD_SECONDS: Final = 0.01
_MOST_SHARE: Final = 20
"""Looking takes one part in so many of the time at most; with very many tasks it is done less often."""

_TASK_WAITS: Final = frozenset(
    {"asyncio.locks.Lock.acquire", "asyncio.locks.Semaphore.acquire", "asyncio.locks._ContextManagerMixin.__aenter__"}
)
_THREAD_WAITS: Final = frozenset({"threading.Semaphore.acquire", "threading._RLock.acquire", "threading.Barrier._wait"})
_UNSEEN: Final = "Threads that wait for a threading.Lock are not seen: such a wait leaves no trace in their stacks."


class _Waits:
    """Who was seen to wait."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._waiting: set[object] = set()
        self._last_ns = time.monotonic_ns()

    def look(self, tasks: "set[asyncio.Task[Any]]") -> None:
        """Notes who waits now."""
        now_ns = time.monotonic_ns()
        passed_ns, self._last_ns = now_ns - self._last_ns, now_ns
        before, self._waiting = self._waiting, set()
        for task in tasks:
            if not task.done():
                self._note(task, stack_of_task(task), _TASK_WAITS, before, passed_ns)
        for ident, frame in sys._current_frames().items():  # noqa: SLF001 (there is no other way to see all threads)
            self._note(ident, stack_of_frame(frame), _THREAD_WAITS, before, passed_ns)

    def _note(self, waiter: object, stack: Stack, waits: frozenset[str], before: set[object], passed_ns: int) -> None:
        depth = 0
        while depth < len(stack) and stack[depth].name in waits:
            depth += 1
        if depth == 0 or depth == len(stack):
            return
        self._waiting.add((waiter, stack))
        self._profile.add(stack[depth:], 0 if (waiter, stack) in before else 1, passed_ns)


async def mutex(seconds: float) -> Profile:
    """Returns who waits for locks during so many seconds, and how long."""
    started_ns, began_ns = time.time_ns(), time.monotonic_ns()
    profile = Profile(
        (ValueType("contentions", "count"), ValueType("delay", "nanoseconds")),
        ValueType("contentions", "count"),
        1,
        started_ns,
        comments=(_UNSEEN,),
    )
    waits = _Waits(profile)
    until_ns = began_ns + int(seconds * 1e9)
    while (now_ns := time.monotonic_ns()) < until_ns:
        waits.look(asyncio.all_tasks())
        taken = (time.monotonic_ns() - now_ns) / 1e9
        await asyncio.sleep(max(0.0, min(max(_PERIOD_SECONDS, _MOST_SHARE * taken), (until_ns - now_ns) / 1e9)))
    profile.duration_ns = time.monotonic_ns() - began_ns
    return profile
