"""Looks at the tasks of a loop for those that wait for a lock of asyncio. Runs on the loop, a few tasks at a turn."""

import asyncio
import time
from types import CodeType, FrameType
from typing import Any, Self

from gateway.profiling.profile import Stack
from gateway.profiling.stacks import DEPTH, frames_of_task, place_of
from gateway.profiling.waits import Waits, pause

TASKS = 100
"""The most tasks that are looked at in one turn of the loop: about 0.5 ms, and 2 ms if all of them have begun to wait."""

# What a wait for a lock ends in. A condition takes its lock back by the lock's `acquire`, and waits elsewhere for its notice.
_ACQUIRE: frozenset[CodeType] = frozenset({asyncio.Lock.acquire.__code__, asyncio.Semaphore.acquire.__code__})
_FILE = asyncio.Lock.acquire.__code__.co_filename


class TaskLocks:
    """Looks as long as its context is open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, waits: Waits) -> None:
        self._loop = loop
        self._waits = waits
        self._tasks: list[asyncio.Task[Any]] = []
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
        now, began = time.monotonic(), time.thread_time()
        if not self._tasks:
            self._waits.turn(now)
            self._tasks = list(asyncio.all_tasks(self._loop))
        batch, self._tasks = self._tasks[-TASKS:], self._tasks[:-TASKS]
        for task in batch:
            frames = list(frames_of_task(task))
            if frames and frames[-1].f_code in _ACQUIRE:
                self._waits.see(now, frames[-1], lambda frames=frames: _stack(frames))  # type: ignore[misc]
        self._timer = self._loop.call_later(pause(time.thread_time() - began), self._look)


def _stack(frames: list[FrameType]) -> Stack:
    """Returns who waits, without what asyncio's locks do among themselves."""
    while len(frames) > 1 and frames[-1].f_code.co_filename == _FILE:
        frames = frames[:-1]
    return tuple(place_of(frame) for frame in reversed(frames[-DEPTH:]))
