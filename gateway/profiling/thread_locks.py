"""Looks at all threads for those that wait for a lock of `threading` which leaves a frame of its own. Runs in a thread.

Python cannot say of a frame that is at `with lock:` whether it waits, or has just got the lock and waits for the interpreter: it is
in C, and the lock is locked either way. A frame within `threading` that stays the same from one look to the next is a wait.
"""

import sys
import threading
import time
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Self

from gateway.profiling.profile import Stack
from gateway.profiling.stacks import stack_of_frame
from gateway.profiling.waits import Waits, pause

_FILE = threading.__file__
_WAIT: CodeType = threading.Condition.wait.__code__
_SEMAPHORE: CodeType = threading.Semaphore.acquire.__code__
# Each takes a condition's lock and does nothing else. They are looked up by name, for the second is no public one.
_TAKES: frozenset[CodeType] = frozenset(
    function.__code__ for name in ("__enter__", "_acquire_restore") if (function := vars(threading.Condition).get(name)) is not None
)


class ThreadLocks:
    """Looks as long as its context is open."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profile-mutex", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # It returns at its next step, which takes no turn of the loop: waiting lets nothing stay behind, even when cancelled.
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        before: set[FrameType] = set()
        took = 0.0
        while not self._over.wait(pause(took)):
            now, began = time.monotonic(), time.thread_time()
            there = set(_waiting(threading.get_ident()))
            # Frames are held from look to look, so that one that is the same object is the same call.
            for frame in there & before:
                self._waits.see(now, frame, lambda frame=frame: _stack(frame))  # type: ignore[misc]
            self._waits.turn(now)
            before = there
            took = time.thread_time() - began


def _waiting(own: int) -> Iterator[FrameType]:
    """Yields the frame of each thread that is where a lock is waited for."""
    for thread, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
        if thread != own and _is_wait(frame):
            yield frame


def _is_wait(frame: FrameType) -> bool:
    """Tells whether a thread's innermost frame takes a lock. A condition's `wait` does so only as a part of a semaphore."""
    if frame.f_code in _TAKES:
        return True
    return frame.f_code is _WAIT and frame.f_back is not None and frame.f_back.f_code is _SEMAPHORE


def _stack(frame: FrameType) -> Stack:
    """Returns who waits, without what `threading` does among itself."""
    outside: FrameType | None = frame
    while outside is not None and outside.f_code.co_filename == _FILE:
        outside = outside.f_back
    return stack_of_frame(outside or frame)
